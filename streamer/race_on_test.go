//go:build race

package streamer_test

// slowdown is by how much the race detector may stretch a stall.
const slowdown = 5
