package wire

import "time"

const (
	// firstRTO is how long the first packet waits for an answer, while nothing is known of the way. iPXE repeats its request after 0.25 s.
	firstRTO = 200 * time.Millisecond
	// minRTO: a client under load answers some milliseconds late. A packet too many does no harm; it is never answered with another one too many.
	minRTO = 30 * time.Millisecond
	// maxRTO ends the doubling: a client whose way is mended goes on within that time, and iPXE gives up after 15.75 s, EDK2 after 24 s.
	maxRTO = time.Second
)

// rtt measures the round trip (RFC 6298 §2).
type rtt struct {
	smooth, varies time.Duration // 0: nothing measured yet
}

func (r *rtt) measured(d time.Duration) {
	if r.smooth == 0 {
		r.smooth, r.varies = max(d, 1), d/2
		return
	}
	delta := r.smooth - d
	if delta < 0 {
		delta = -delta
	}
	r.varies += (delta - r.varies) / 4
	r.smooth = max(r.smooth+(d-r.smooth)/8, 1)
}

// timeout is how long to wait for an answer before anything is sent again.
func (r *rtt) timeout() time.Duration {
	if r.smooth == 0 {
		return firstRTO
	}
	return min(max(r.smooth+4*r.varies, minRTO), maxRTO)
}
