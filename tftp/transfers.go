package tftp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"everboot/tftp/wire"
)

// pastKept is how many transfers that ended are remembered for whoever asks.
const pastKept = 200

// Transfer is a transfer, live or past.
type Transfer struct {
	Client  netip.AddrPort `json:"client"`
	Server  netip.Addr     `json:"server"` // the address that the client asked
	File    string         `json:"file"`
	Size    int64          `json:"size"`  // bytes
	Bytes   int64          `json:"bytes"` // that the client has
	Block   int            `json:"block"` // bytes in a packet
	Window  int            `json:"window"`
	Began   time.Time      `json:"began"` // here: a transfer that was taken over began before
	Ended   time.Time      `json:"ended,omitzero"`
	Result  string         `json:"result"`            // running, or a wire.Result
	Resent  uint64         `json:"resent,omitempty"`  // packets sent again
	Resumed int            `json:"resumed,omitempty"` // how often an appliance took it over
}

func (t *transfer) describe() Transfer {
	d := Transfer{
		Client: t.ends.client(), Server: t.ends.server(), File: t.request.Name, Began: t.began, Result: wire.Running.String(), Resumed: t.resumed,
	}
	if t.image != nil {
		terms := t.session.Terms()
		d.File, d.Size, d.Bytes, d.Block, d.Window = t.image.name, terms.Size, t.session.Bytes(), terms.Block, terms.Window
		d.Result, d.Resent = t.session.Result().String(), t.session.Resent()
	}
	return d
}

// past remembers the last transfers that ended.
type past struct {
	ring []Transfer
	next int
}

func (p *past) add(t *transfer) {
	d := t.describe()
	d.Ended = time.Now()
	if len(p.ring) < pastKept {
		p.ring = append(p.ring, d)
		return
	}
	p.ring[p.next] = d
	p.next = (p.next + 1) % pastKept
}

// Transfers returns the transfers under way, the oldest first, and the last ones that ended, the newest first. Those of probes are not among
// them. It returns nothing when the server does not run or ctx ends.
func (s *Server) Transfers(ctx context.Context) (live, ended []Transfer) {
	type both struct{ live, ended []Transfer }
	answer := make(chan both, 1)
	ok := s.inbox.call(func(o *owner) {
		var b both
		for _, t := range o.table.byEnds {
			if !t.probe {
				b.live = append(b.live, t.describe())
			}
		}
		b.ended = slices.Clone(o.past.ring)
		answer <- b
	})
	if !ok {
		return nil, nil
	}
	select {
	case b := <-answer:
		slices.SortFunc(b.live, func(a, b Transfer) int {
			return cmp.Or(a.Began.Compare(b.Began), a.Client.Compare(b.Client))
		})
		slices.SortFunc(b.ended, func(a, b Transfer) int { return b.Ended.Compare(a.Ended) })
		return b.live, b.ended
	case <-ctx.Done():
		return nil, nil
	}
}

// report logs the end of a transfer and tells its target's timeline.
func (o *owner) report(t *transfer) {
	if t.probe {
		return
	}
	o.past.add(t)
	name, log := t.image.name, o.s.log.With("client", t.ends.client(), "file", t.image.name, "bytes", t.session.Bytes())
	switch t.session.Result() {
	case wire.Complete:
		log.Debug("tftp: sent")
		text := fmt.Sprintf("%s, %d bytes", name, t.session.Bytes())
		if t.resumed > 0 {
			text += ", taken over from another appliance"
		}
		o.s.tell(&t.ends, text)
	case wire.SizeProbe:
		log.Debug("tftp: asked for the size")
	case wire.Unanswered:
		log.Debug("tftp: the client did not answer")
	case wire.Aborted:
		log.Info("tftp: the client gave up", "code", t.code, "text", t.text)
		o.s.tell(&t.ends, fmt.Sprintf("%s: the client gave up after %d bytes: %s", name, t.session.Bytes(), plain(t.text)))
	case wire.Unconfirmed:
		log.Info("tftp: sent, but the client did not say that it has the last block")
		o.s.tell(&t.ends, fmt.Sprintf("%s: sent, the last block was not acknowledged", name))
	default:
		log.Info("tftp: the client fell silent")
		o.s.tell(&t.ends, fmt.Sprintf("%s: the client fell silent after %d bytes", name, t.session.Bytes()))
	}
}
