package dhcp

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"everboot/dhcp/leases"
	"everboot/dhcp/pair"
	"everboot/site"
)

// TestWhatCameToTheFloatingAddressIsOurs: a relay agent that sends to the floating address alone reaches one node. Other messages are shared out.
func TestWhatCameToTheFloatingAddressIsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.ServerID = ip("198.18.0.10")
		cfg.Subnets[0].Range = [2]netip.Addr{ip("198.18.0.20"), ip("198.18.0.249")}
		told := &words{}
		cfg.Tell = told.add
		s, w, _, _ := simulated(t, cfg)
		s.state.Join(time.Now(), 1, time.Time{})
		defer run(t, s)()
		peer := pair.New(time.Now(), pair.Config{Self: cfg.Peers[0], Peers: []netip.Addr{cfg.ServerAddress}, Longest: time.Hour, Incarnation: 2}, leases.NewTable(nil))
		meet(s, peer, told)
		for to, want := range map[netip.Addr]func(answers int) bool{
			limitedBroadcast:  func(n int) bool { return n > 4 && n < 28 },
			cfg.ServerAddress: func(n int) bool { return n > 4 && n < 28 }, // an agent that asks all of us
			cfg.ServerID:      func(n int) bool { return n == 32 },
		} {
			before := len(w.answers())
			for i := range 32 {
				q := message(site.MAC{2, 0, 0, to.As4()[3], 0, byte(i)}, discover, giaddr("198.18.0.1"))
				s.receive(question{q, to})
			}
			if n := len(w.answers()) - before; !want(n) {
				t.Errorf("%d of 32 clients were answered that asked %s", n, to)
			}
			meet(s, peer, told) // they stay in touch
		}
	})
}
