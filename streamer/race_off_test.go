//go:build !race

package streamer_test

const slowdown = 1
