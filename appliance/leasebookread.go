package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"everboot/dhcp/leases"
	"everboot/dhcp/pair"
)

// each does something for several nodes at a time, within bookPatience for all of them: one whose pages cannot be read, or hang, keeps nobody from the
// others'. It returns those that failed.
func (b *leasebook) each(ctx context.Context, nodes []netip.Addr, do func(context.Context, netip.Addr) error) (failed []netip.Addr, err error) {
	ctx, cancel := context.WithTimeout(ctx, bookPatience)
	defer cancel()
	errs := make([]error, len(nodes))
	var group sync.WaitGroup
	for i, node := range nodes {
		group.Go(func() {
			if err := do(ctx, node); err != nil {
				errs[i] = fmt.Errorf("what %s wrote: %w", node, err)
			}
		})
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			failed = append(failed, nodes[i])
		}
	}
	return failed, errors.Join(errs...)
}

// recall returns what was written down, for a server whose disk is new, and whether that is all.
func (b *leasebook) recall() (list []leases.Lease, all bool) {
	ctx, cancel := context.WithTimeout(context.Background(), bookStart)
	defer cancel()
	nodes, read := slices.Clone(b.unread), make(map[netip.Addr]map[netip.Prefix][]leases.Lease)
	var mu sync.Mutex
	var err error
	for left := nodes; ctx.Err() == nil; {
		if left, err = b.each(ctx, left, func(ctx context.Context, node netip.Addr) error {
			pages, err := b.pages.Pages(ctx, node)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				read[node] = b.read(node, pages)
			}
			return err
		}); err == nil {
			break
		}
		select {
		case <-time.After(bookAgain):
		case <-ctx.Done():
		}
	}
	if err != nil {
		b.log.Warn("the lease file is new, and not all that was written down of leases can be read yet", "error", err)
	}
	for _, node := range nodes {
		for _, page := range read[node] {
			if list = append(list, page...); len(list) >= maxRecalled {
				return list, false
			}
		}
	}
	return list, err == nil
}

// read returns the leases of pages, by block. A page that cannot be read is left out.
func (b *leasebook) read(node netip.Addr, pages map[string][]byte) map[netip.Prefix][]leases.Lease {
	out := make(map[netip.Prefix][]leases.Lease)
	for name, value := range pages {
		a, err := netip.ParseAddr(name)
		block := leases.PageOf(a)
		var list []leases.Lease
		if err == nil {
			list, err = leases.DecodePage(time.Now(), block, value)
		}
		if err != nil {
			b.log.Warn("leaving out a page of leases", "of", node, "page", name, "error", err)
			continue
		}
		out[block] = list
	}
	return out
}

// open reads what was there when we came: it may be more than our disk knows. All of our own pages, and all that we know, is written anew. What cannot be
// read is tried again the next time; only our own pages must be read before we write.
func (b *leasebook) open(ctx context.Context) (err error) {
	if len(b.unread) == 0 {
		return nil
	}
	b.unread, err = b.each(ctx, b.unread, func(ctx context.Context, node netip.Addr) error {
		pages, err := b.readPages(ctx, node, false)
		if err == nil && node == b.own {
			for block := range pages { // also those that nobody has a lease in any more
				b.changed([]leases.Lease{{Address: block.Addr()}})
			}
		}
		return err
	})
	if !b.opened && !slices.Contains(b.unread, b.own) {
		b.opened = true
		b.changed(b.server.Leases())
	}
	return err
}

func (b *leasebook) readPages(ctx context.Context, node netip.Addr, lives bool) (map[netip.Prefix][]leases.Lease, error) {
	pages, err := b.pages.Pages(ctx, node)
	if err != nil {
		return nil, err
	}
	read := b.read(node, pages)
	for _, list := range read {
		if err := b.server.Learn(ctx, node, lives, list); err != nil {
			return nil, err
		}
	}
	return read, nil
}

// away returns the peers that are out of contact.
func (b *leasebook) away() (list []netip.Addr) {
	for _, p := range b.server.Peers() {
		if p.State != pair.InTouch && slices.Contains(b.peers, p.Address) {
			list = append(list, p.Address)
		}
	}
	return list
}

// look reads what peers wrote that are out of contact.
func (b *leasebook) look(ctx context.Context) error {
	away := b.away()
	b.mu.Lock()
	maps.DeleteFunc(b.beats, func(a netip.Addr, _ uint64) bool { return !slices.Contains(away, a) })
	b.mu.Unlock()
	_, err := b.each(ctx, away, b.lookAt)
	return err
}

// lookAt reads what a peer wrote. That it wrote since we looked last says that it lives.
func (b *leasebook) lookAt(ctx context.Context, node netip.Addr) error {
	beat, err := b.pages.Beats(ctx, node)
	if err != nil {
		return err
	}
	b.mu.Lock()
	before, known := b.beats[node]
	b.mu.Unlock()
	if known && beat == before {
		return nil
	}
	pages, err := b.readPages(ctx, node, known)
	if err != nil {
		return err
	}
	if known && len(pages) == 0 { // it lives, and has given nothing
		if err := b.server.Learn(ctx, node, true, nil); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beats[node] = beat
	return nil
}
