package tftp

import (
	"sync/atomic"

	"everboot/tftp/wire"
)

// Reason is why a datagram did not become a transfer, or what was odd.
type Reason uint8

// The reasons.
const (
	Malformed   Reason = iota // no TFTP, or a request that cannot be read: silence
	Write                     // we are read-only
	UnknownMode               // neither octet nor netascii
	BadName                   // a name that no honest client sends
	NotFound                  // no such file
	NotReadable               // the file is there, and cannot be read
	Refused                   // too many transfers, of this client or in all
	Busy                      // too many files are being opened: the client asks again
	Stray                     // an ACK or ERROR of no transfer that we know: silence, because another appliance may
	Group                     // sent to a broadcast address (RFC 1123 §4.2.3.5)
	Evicted                   // gave its place to another client, before it ever answered
	Superseded                // its client asked for something else from the same port
	OtherFile                 // taken over from an appliance whose file is another one
	NoFile                    // taken over, and this appliance has no such file
	BadPeer                   // a message of a peer that cannot be read, or more than we keep
	NoPort                    // no port of its own could be opened, or not the one by which its client knows it
	LetGo                     // its address went to another appliance, which leads it on
	reasons
)

var reasonNames = [reasons]string{
	"malformed", "write", "unknown_mode", "bad_name", "not_found", "not_readable", "refused", "busy", "stray", "group", "evicted", "superseded",
	"other_file", "no_file", "bad_peer", "no_port", "let_go",
}

// String returns the reason as metrics name it.
func (r Reason) String() string { return reasonNames[r] }

// Stats counts since the start, but for Active.
type Stats struct {
	Active   int64             `json:"active"`   // transfers under way
	Bytes    uint64            `json:"bytes"`    // of file content that clients have acknowledged
	Resent   uint64            `json:"resent"`   // packets sent again
	Resumed  uint64            `json:"resumed"`  // transfers of other appliances that went on here
	Unsent   uint64            `json:"unsent"`   // packets that the kernel did not take
	Finished map[string]uint64 `json:"finished"` // transfers that ended, by wire.Result
	Dropped  map[string]uint64 `json:"dropped"`  // by Reason
}

// counters are written by the owner of the transfers and read by anybody.
type counters struct {
	active                         atomic.Int64
	bytes, resent, resumed, unsent atomic.Uint64
	finished                       [wire.Results]atomic.Uint64
	dropped                        [reasons]atomic.Uint64
}

// Stats returns the counters of now.
func (s *Server) Stats() Stats {
	c := &s.stats
	v := Stats{
		Active: c.active.Load(), Bytes: c.bytes.Load(), Resent: c.resent.Load(), Resumed: c.resumed.Load(), Unsent: c.unsent.Load(),
		Finished: make(map[string]uint64), Dropped: make(map[string]uint64),
	}
	for r := wire.Complete; r < wire.Results; r++ {
		v.Finished[r.String()] = c.finished[r].Load()
	}
	for r := range reasons {
		v.Dropped[r.String()] = c.dropped[r].Load()
	}
	return v
}
