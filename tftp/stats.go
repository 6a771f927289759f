package tftp

import (
	"fmt"
	"sync/atomic"

	pin "github.com/pin/tftp/v3"
)

// Stats counts since the start, but for Active.
type Stats struct {
	Active     int64  `json:"active"`      // transfers under way
	Complete   uint64 `json:"complete"`    // every block acknowledged
	Bytes      uint64 `json:"bytes"`       // of file content, of transfers that have ended
	SizeProbes uint64 `json:"size_probes"` // asked for the size and aborted by design, as EDK2 does
	Aborted    uint64 `json:"aborted"`     // the client sent an ERROR in mid-file
	Failed     uint64 `json:"failed"`      // the client fell silent, or the file could not be read
	NotFound   uint64 `json:"not_found"`   // no such file, or a bad name
	Refused    uint64 `json:"refused"`     // too many transfers at once
	Malformed  uint64 `json:"malformed"`   // datagrams that are no request
	Writes     uint64 `json:"writes"`      // refused: we are read-only
}

type counters struct {
	active                                                                             atomic.Int64
	complete, bytes, sizeProbes, aborted, failed, notFound, refused, malformed, writes atomic.Uint64
}

// Stats returns the counters of now.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{
		Active: c.active.Load(), Complete: c.complete.Load(), Bytes: c.bytes.Load(), SizeProbes: c.sizeProbes.Load(),
		Aborted: c.aborted.Load(), Failed: c.failed.Load(), NotFound: c.notFound.Load(), Refused: c.refused.Load(),
		Malformed: c.malformed.Load(), Writes: c.writes.Load(),
	}
}

func (c *counters) finished(r result, n int64) {
	c.bytes.Add(uint64(n))
	switch r {
	case complete:
		c.complete.Add(1)
	case sizeProbe:
		c.sizeProbes.Add(1)
	case aborted:
		c.aborted.Add(1)
	case failed:
		c.failed.Add(1)
	}
}

// result is how a transfer that had begun ended.
type result int

const (
	complete result = iota
	sizeProbe
	aborted
	failed
)

// outcome reads pin/tftp's error. An ERROR packet comes as text only, "sending block N: code=C, error: …". Block 0 is the option
// acknowledgement: a client that refuses it wanted to know the size (EDK2 with code 8, other ROMs with code 0), and comes again.
func outcome(err error) (r result, block, code int) {
	if err == nil {
		return complete, 0, 0
	}
	if _, scanErr := fmt.Sscanf(err.Error(), "sending block %d: code=%d,", &block, &code); scanErr != nil {
		return failed, 0, 0
	}
	if block == 0 {
		return sizeProbe, 0, code
	}
	return aborted, block, code
}

// hook counts what never reaches serve.
type hook struct{ c *counters }

// OnSuccess implements pin.Hook.
func (hook) OnSuccess(pin.TransferStats) {}

// OnFailure implements pin.Hook. Without a client it was a datagram that is no request, without a single datagram sent a request
// that was refused; serve has counted refused reads, so that writes are the others.
func (h hook) OnFailure(t pin.TransferStats, err error) {
	switch {
	case t.RemoteAddr == nil:
		h.c.malformed.Add(1)
	case err != nil && err.Error() == "server does not support write requests":
		h.c.writes.Add(1)
	}
}
