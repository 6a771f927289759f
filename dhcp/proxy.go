package dhcp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// ProxyPort is where PXE clients ask a boot server that they know of (PXE 2.1 §2.2.1).
const ProxyPort = 4011

// The reasons of a proxyDHCP server, which gives no addresses.
const (
	Proxied   Reason = "proxied"    // told where to boot from
	NotBooted Reason = "no-boot"    // nothing to tell it: the boot reason says why
	NoClient  Reason = "not-a-boot" // it does not ask where to boot from
)

// Ignored is the name of the event of a client that started again at its firmware, as if it had had no offer of ours.
const Ignored = "ignored"

// HandleProxy decides on one message as a proxyDHCP server beside somebody else's DHCP server (PXE 2.1 §2.2.3): boot options and no address.
// port is where the message came in. The answer is nil for silence.
func HandleProxy(now time.Time, view *site.View, q *dhcpv4.DHCPv4, port int, server netip.Addr) (*dhcpv4.DHCPv4, Decision) {
	if view == nil {
		view = &site.View{}
	}
	r, reason := read(q)
	d := Decision{
		At: now, MAC: r.mac, Message: messageName(r.kind), Reason: reason, Client: r.boot.Client, Arch: r.boot.Arch, Vendor: r.vendor,
	}
	kind := proxyAnswer(r.kind, port)
	switch {
	case reason == Searching && port == dhcpv4.ServerPort:
		var p *dhcpv4.DHCPv4
		p, d.Reason = introduce(view, r, server, false)
		return p, d
	case reason != "":
		return nil, d
	case kind == dhcpv4.MessageTypeNone:
		d.Reason = Unsupported
		return nil, d
	case r.boot.Client == site.ClientOther:
		d.Reason = NoClient
		return nil, d
	}
	offer, boot := site.Boot(view, r.boot)
	if d.Boot = boot; boot != site.Offered {
		d.Reason = NotBooted
		return nil, d
	}
	d.Reason, d.Answer, d.Server, d.File = Proxied, messageName(kind), offer.Server, offer.File
	p := blank(r, kind, server)
	bootOptions(p, r, offer)
	if r.boot.Client == site.ClientIPXE {
		// iPXE takes an offer without an address for one of a proxy only with this class. That no proxy is to be waited for is not ours to say.
		delete(p.Options, optionIPXE)
		p.Options[dhcpv4.OptionClassIdentifier.Code()] = []byte(vendorPXE)
		p.Options[dhcpv4.OptionVendorSpecificInformation.Code()] = []byte{pxeDiscovery, 1, pxeUseOfferedFile, pxeEnd}
	}
	if port == ProxyPort {
		p.ClientIPAddr = netIP(r.ciaddr)
		return p, d
	}
	p.SetBroadcast() // it has no address yet, and we give it none
	return p, d
}

// proxyAnswer returns what a message is answered with. On port 67 a REQUEST is for the DHCP server whose address the client takes.
func proxyAnswer(kind dhcpv4.MessageType, port int) dhcpv4.MessageType {
	switch {
	case port == dhcpv4.ServerPort && kind == dhcpv4.MessageTypeDiscover:
		return dhcpv4.MessageTypeOffer
	case port == ProxyPort && (kind == dhcpv4.MessageTypeRequest || kind == dhcpv4.MessageTypeInform):
		return dhcpv4.MessageTypeAck
	}
	return dhcpv4.MessageTypeNone
}

// proxyDestination returns where an OFFER goes: to the relay that the client's message came by (RFC 2131 §4.1), or to everybody.
func proxyDestination(p *dhcpv4.DHCPv4) destination {
	if giaddr, _ := headerAddr(p.GatewayIPAddr); giaddr.IsValid() {
		return destination{addr: netip.AddrPortFrom(giaddr, dhcpv4.ServerPort)}
	}
	return destination{addr: netip.AddrPortFrom(limitedBroadcast, dhcpv4.ClientPort), mac: broadcastMAC}
}

// takers notes which clients went on with what they were offered. It is bounded.
type takers struct{ young, old map[site.MAC]time.Time }

// ignoredAfter: a firmware that asks again later than this has started anew; before, it repeats itself.
const ignoredAfter = 45 * time.Second

// ignored notes a decision and reports whether it shows that the client ignored our last offer: its firmware asks once more, and
// neither asked at port 4011 nor came back as iPXE in between.
func (t *takers) ignored(d Decision, port int) bool {
	if d.Client == site.ClientIPXE || port == ProxyPort {
		delete(t.young, d.MAC)
		delete(t.old, d.MAC)
		return false
	}
	if d.Reason != Proxied {
		return false
	}
	at, ok := t.young[d.MAC]
	if !ok {
		at, ok = t.old[d.MAC]
	}
	if ok && d.At.Sub(at) < ignoredAfter {
		return false
	}
	if t.young == nil || len(t.young) >= maxRecent {
		t.old, t.young = t.young, make(map[site.MAC]time.Time)
	}
	t.young[d.MAC] = d.At
	return ok
}

// Proxy is a proxyDHCP server on one interface.
type Proxy struct {
	cfg    Config
	view   func() *site.View
	events func(site.Event)
	log    *slog.Logger
	ready  chan struct{}
	listen func(Config, inbox) (transport, error)

	mu     sync.Mutex // guards what follows
	stats  Stats
	takers takers

	limiter limiter
}

// NewProxy returns a proxyDHCP server. Of the configuration it needs Interface and ServerAddress.
func NewProxy(cfg Config, view func() *site.View, events func(site.Event), log *slog.Logger) (*Proxy, error) {
	if cfg.Interface == "" || !cfg.ServerAddress.Is4() {
		return nil, fmt.Errorf("dhcp: a proxy needs an interface and an IPv4 address of this node on it")
	}
	return &Proxy{
		cfg: cfg, view: view, events: events, log: log, listen: listen, ready: make(chan struct{}), stats: newStats(),
	}, nil
}

// Ready is closed when messages are answered.
func (s *Proxy) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends. When a socket fails, all are opened again until it works.
func (s *Proxy) Run(ctx context.Context) error {
	for first := true; ; first = false {
		err := s.serve(ctx, first)
		if ctx.Err() != nil {
			return nil
		}
		if first && !s.isReady() {
			return err
		}
		s.log.Error("proxyDHCP lost its sockets; opening them again", "interface", s.cfg.Interface, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reopenAfter):
		}
	}
}

func (s *Proxy) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// asking is a message to a proxy, and what answers it.
type asking struct {
	q      *dhcpv4.DHCPv4
	port   int
	answer func(p *dhcpv4.DHCPv4) error
}

func (s *Proxy) serve(ctx context.Context, first bool) error {
	queue := make(chan asking, DefaultQueueLength)
	put := func(a asking) {
		select {
		case queue <- a:
		default:
			s.count(Overloaded)
		}
	}
	var net67 transport
	send := func(p *dhcpv4.DHCPv4) error {
		return net67.Send(p.ToBytes(), proxyDestination(p))
	}
	receive := func(q question) {
		if q.DHCPv4 == nil {
			s.count(Malformed)
			return
		}
		put(asking{q.DHCPv4, dhcpv4.ServerPort, send})
	}
	opened, err := s.listen(s.cfg, inbox{receive, func() {}})
	if err != nil {
		return err
	}
	net67 = opened
	conn, err := listenUDP(s.cfg.Interface, ProxyPort)
	if err != nil {
		net67.Close()
		return fmt.Errorf("dhcp: listening on port %d of %s: %w", ProxyPort, s.cfg.Interface, err)
	}
	if first {
		s.log.Info("proxyDHCP serves", "interface", s.cfg.Interface, "server", s.cfg.ServerAddress)
		close(s.ready)
	}
	failed := make(chan error, 2)
	var all sync.WaitGroup
	all.Go(func() { failed <- net67.Wait() })
	all.Go(func() { failed <- s.readBoot(conn, put) })
	defer all.Wait()
	defer net67.Close()
	defer conn.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("receiving: %w", err)
		case a := <-queue:
			s.handle(a)
		}
	}
}

// readBoot reads port 4011. BIOS ROMs ask from port 68, UEFI from 4011: the answer goes where the question came from.
func (s *Proxy) readBoot(conn net.PacketConn, put func(asking)) error {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return err
		}
		q, err := dhcpv4.FromBytes(b[:n])
		if err != nil {
			s.count(Malformed)
			continue
		}
		put(asking{q, ProxyPort, func(p *dhcpv4.DHCPv4) error {
			_, err := conn.WriteTo(p.ToBytes(), from)
			return err
		}})
	}
}

func (s *Proxy) count(r Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Reasons[r]++
}

// allows counts a message against what its machine may send.
func (s *Proxy) allows(q *dhcpv4.DHCPv4) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	allowed := len(q.ClientHWAddr) != len(site.MAC{}) || s.limiter.allows(time.Now(), site.MAC(q.ClientHWAddr))
	if !allowed {
		s.stats.Reasons[TooMany]++
	}
	return allowed
}

func (s *Proxy) handle(a asking) {
	if !s.allows(a.q) {
		return
	}
	p, d := HandleProxy(time.Now(), s.view(), a.q, a.port, s.cfg.ServerAddress)
	s.mu.Lock()
	s.stats.count(d)
	ignored := s.takers.ignored(d, a.port)
	if ignored {
		s.stats.Ignored++
	}
	s.mu.Unlock()
	if ignored && s.events != nil {
		s.events(site.Event{At: d.At, MAC: d.MAC, What: Ignored, Detail: fmt.Sprintf(
			"firmware (%s) took no notice of our last proxyDHCP offer: let DHCP itself name the boot file (mode = \"server\", or options 66 and 67 there)", d.Vendor)})
	}
	if s.events != nil && (p != nil || d.Reason == NotBooted) && d.Reason != Introduced {
		e := d.event()
		e.Begins = a.q.MessageType() == dhcpv4.MessageTypeDiscover
		s.events(e)
	}
	if p == nil {
		return
	}
	if err := a.answer(p); err != nil {
		s.mu.Lock()
		s.stats.SendErrors++
		s.mu.Unlock()
		s.log.Warn("proxyDHCP cannot send an answer", "mac", d.MAC, "error", err)
	}
}

// Stats returns the counters since NewProxy.
func (s *Proxy) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats.clone()
}
