package dhcp

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// counter is a transport that counts ACKs.
type counter struct {
	acks atomic.Int64
	done chan struct{}
}

func (c *counter) Send(payload []byte, _ destination) error {
	if p, err := dhcpv4.FromBytes(payload); err == nil && p.MessageType() == dhcpv4.MessageTypeAck {
		c.acks.Add(1)
	}
	return nil
}

func (c *counter) Wait() error { <-c.done; return nil }

func (c *counter) Close() { close(c.done) }

// BenchmarkExchanges is DISCOVER and REQUEST of 20,000 clients with everything but the network: every lease is on a real disk before
// its ACK.
func BenchmarkExchanges(b *testing.B) {
	cfg := alone()
	cfg.LeaseFile = filepath.Join(b.TempDir(), "leases.db")
	cfg.Subnets = []Subnet{{Network: netip.MustParsePrefix("198.18.0.0/16"), Range: [2]netip.Addr{ip("198.18.1.0"), ip("198.18.255.254")}}}
	s, err := New(cfg, testView, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	c := &counter{done: make(chan struct{})}
	s.listen, s.arp = func(Config, inbox) (transport, error) { return c, nil }, nil
	ctx, cancel := context.WithCancel(b.Context())
	finished := make(chan error, 1)
	go func() { finished <- s.Run(ctx) }()
	<-s.Ready()
	n := 0
	for b.Loop() {
		i := n % 20000
		mac := site.MAC{0x52, 0x54, 0, 1, byte(i >> 8), byte(i)}
		s.queue <- question{DHCPv4: message(mac, discover)}
		a := netip.AddrFrom4([4]byte{198, 18, byte(1 + i>>8), byte(i)})
		s.queue <- question{DHCPv4: message(mac, ask, serverID("198.18.0.2"), requested(a.String()))}
		n++
	}
	cancel()
	if err := <-finished; err != nil {
		b.Fatal(err)
	}
	st := s.Stats()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "exchanges/s")
	b.ReportMetric(float64(st.Committed)/float64(st.Commits), "leases/write")
}
