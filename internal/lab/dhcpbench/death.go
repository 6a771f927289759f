package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"everboot/internal/lab"
)

const (
	crowdRate  = 1000
	crowdCount = 15000
	// strikeAfter is when the trouble begins, healAfter when it ends.
	strikeAfter = 5 * time.Second
	healAfter   = 11 * time.Second
)

// crowd lets clients come at 1,000 a second while something happens to the appliances, and prints what the capture says.
func (b *bench) crowd(ctx context.Context, title string, strike, heal func(*site, pairOfAppliances) error) error {
	return with(func(s *site) error {
		s.lan.Capture("lan")
		p, err := s.appliances()
		if err != nil {
			return err
		}
		c := lab.Crowd{Host: s.c, Relay: netip.MustParseAddr(clientAddress), Rate: crowdRate, Count: crowdCount}
		ctx, cancel := context.WithTimeout(ctx, crowdCount/crowdRate*time.Second+settle)
		defer cancel()
		trouble := make(chan error, 1)
		go func() { trouble <- act(ctx, s, p, strike, heal) }()
		if _, err := c.Run(ctx); err != nil {
			return err
		}
		if err := <-trouble; err != nil {
			return err
		}
		a, err := s.lan.AuditLeases()
		if err != nil {
			return err
		}
		fmt.Printf("\n%s; %d clients a second; by the capture\n", title, crowdRate)
		b.row("CLIENTS", "WITHOUT ADDRESS", "GIVEN TWICE", "TWO ADDRESSES", "WAIT 99 %", "LONGEST WAIT", "ACKs", "NAKs")
		b.row(a.Clients, a.Silent, len(a.Twice), len(a.Changed), a.Within().Round(time.Millisecond), a.Worst().Round(time.Millisecond), a.Acks, a.Naks)
		if len(a.Twice)+len(a.Changed)+a.Silent > 0 || a.Worst() > 4*time.Second {
			return fmt.Errorf("not as it must be: twice %v, two addresses %v", head(a.Twice), head(a.Changed))
		}
		return nil
	})
}

func head(list []string) []string { return list[:min(len(list), 5)] }

func act(ctx context.Context, s *site, p pairOfAppliances, strike, heal func(*site, pairOfAppliances) error) error {
	for _, step := range []struct {
		after time.Duration
		do    func(*site, pairOfAppliances) error
	}{{strikeAfter, strike}, {healAfter - strikeAfter, heal}} {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(step.after):
		}
		if err := step.do(s, p); err != nil {
			return err
		}
	}
	return nil
}

// death kills everything on the node that owns the floating address.
func (b *bench) death(ctx context.Context) error {
	return b.crowd(ctx, "one of two nodes is killed after 5 s",
		func(s *site, _ pairOfAppliances) error { s.a.KillAll(); return nil },
		func(*site, pairOfAppliances) error { return nil })
}

// partition keeps the nodes from hearing each other; clients hear both.
func (b *bench) partition(ctx context.Context) error {
	return b.crowd(ctx, "the nodes do not hear each other from 5 s to 11 s, clients hear both",
		func(s *site, _ pairOfAppliances) error { return s.deaf(ctx, true) },
		func(s *site, _ pairOfAppliances) error { return s.deaf(ctx, false) })
}

// deaf makes each node drop what the other sends, on any protocol.
func (s *site) deaf(ctx context.Context, on bool) error {
	for h, other := range map[*lab.Host]*lab.Host{s.a: s.b, s.b: s.a} {
		rules := "delete table netdev deaf\n"
		if on {
			rules = fmt.Sprintf(`table netdev deaf { chain in { type filter hook ingress device "eth0" priority 0; ether saddr %s drop; }; }`,
				other.Cables()[0].MAC())
		}
		path, err := s.write(h.Name()+".nft", rules)
		if err != nil {
			return err
		}
		if _, err := h.Run(ctx, "nft", "-f", path); err != nil {
			return err
		}
	}
	return nil
}
