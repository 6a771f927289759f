package tftp

import "everboot/tftp/wire"

// blocks sends blocks whose content is in memory. Others wait until it is: nobody else waits with them.
func (o *owner) blocks(t *transfer, first uint64, count int) {
	i, block := t.image, int64(t.session.Terms().Block)
	end := min(int64(first+uint64(count)-1)*block, int64(len(i.data)))
	if warm := i.warm.Load(); warm < int64(len(i.data)) {
		if end+warmPiece/2 > warm {
			o.warm(i)
		}
		if end > warm {
			t.held = end
			return
		}
	}
	t.held, o.lockstep = 0, count == 1
	o.out.data(t.socket, &t.route, i.data, int(block), first, count)
}

// warm has the next piece of a file read.
func (o *owner) warm(i *image) {
	if !i.warming.CompareAndSwap(false, true) {
		return
	}
	o.lib.hold(i)
	o.job(func() {
		err := i.warmUp(warmPiece)
		i.warming.Store(false)
		o.s.inbox.call(func(o *owner) { o.warmed(i, err) })
		o.lib.release(i)
	}, func() { i.warming.Store(false); o.lib.release(i) })
}

// warmed sends what has waited for a piece of the file. After an error nobody knows what the disk does: the transfers' patience ends them.
func (o *owner) warmed(i *image, err error) {
	if err != nil {
		o.s.log.Warn("tftp: reading a boot file", "file", i.name, "err", err)
		return
	}
	for _, t := range o.table.byEnds {
		switch {
		case t.held == 0 || t.image != i:
		case t.held > i.warm.Load(): // nothing is sent yet, so the session's clock goes on
			o.warm(i)
		default:
			t.held = 0
			o.act(t, t.session.Step(o.now, wire.Event{Kind: wire.Read}))
		}
	}
}

// job has an opener do something, or calls full when too much waits.
func (o *owner) job(f, full func()) {
	select {
	case o.jobs <- f:
	default:
		full()
	}
}
