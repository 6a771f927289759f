package peers

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Times of the channel. A peer that died is called so after 1.5 to 2.5 s. Nothing that is fast waits for that: the floating address moves by
// VRRP alone.
const (
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 200 * time.Millisecond
	streamTimeout = 2 * time.Second
	meetInterval  = time.Second // between two attempts to meet a peer that does not answer
	leaveTimeout  = 300 * time.Millisecond
)

// longQueue is how many messages may wait that are too long for a datagram.
const longQueue = 64

// Channel joins the appliances of a site.
type Channel struct {
	cfg    Config
	shares map[Topic]Share
	log    *slog.Logger
	ready  chan struct{}
	long   chan []byte

	list atomic.Pointer[memberlist.Memberlist] // nil: not running

	mu    sync.Mutex
	peers map[netip.Addr]Peer
	stats Stats
}

// Stats counts messages.
type Stats struct {
	Sent     uint64          `json:"sent"`
	Received uint64          `json:"received"`
	Dropped  map[Drop]uint64 `json:"dropped,omitempty"`
}

// New returns a channel with the shares of the rooms. Nothing is opened before Run.
func New(cfg Config, shares map[Topic]Share, log *slog.Logger) (*Channel, error) {
	if cfg.Port == 0 {
		cfg.Port = DefaultPort
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Channel{
		cfg: cfg, shares: maps.Clone(shares), log: log, ready: make(chan struct{}), long: make(chan []byte, longQueue),
		peers: make(map[netip.Addr]Peer), stats: Stats{Dropped: make(map[Drop]uint64)},
	}
	for _, addr := range cfg.Peers {
		c.peers[addr] = Peer{Address: addr}
	}
	return c, nil
}

// Ready is closed when messages of peers are heard. It does not wait for any peer.
func (c *Channel) Ready() <-chan struct{} { return c.ready }

// Run keeps the channel up until ctx ends, and then says goodbye.
func (c *Channel) Run(ctx context.Context) error {
	settings, err := c.settings()
	if err != nil {
		return err
	}
	list, err := memberlist.Create(settings)
	if err != nil {
		return fmt.Errorf("opening the peer channel at %s port %d (UDP and TCP): %w; stop the program that has the port", c.cfg.Own, c.cfg.Port, err)
	}
	c.list.Store(list)
	var all sync.WaitGroup
	all.Go(func() { c.meet(ctx, list) })
	all.Go(func() { c.sendLong(ctx, list) })
	close(c.ready)
	<-ctx.Done()
	all.Wait()
	c.list.Store(nil)
	if err := list.Leave(leaveTimeout); err != nil {
		c.log.Debug("leaving the peers", "error", err)
	}
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("closing the peer channel: %w", err)
	}
	return nil
}

func (c *Channel) settings() (*memberlist.Config, error) {
	key, err := c.cfg.secret()
	if err != nil {
		return nil, fmt.Errorf("deriving the key of the peers: %w", err)
	}
	s := memberlist.DefaultLANConfig()
	s.Name = c.cfg.Node
	s.BindAddr, s.AdvertiseAddr = c.cfg.Own.String(), c.cfg.Own.String()
	s.BindPort, s.AdvertisePort = c.cfg.Port, c.cfg.Port
	s.SecretKey = key
	s.ProbeInterval, s.ProbeTimeout = probeInterval, probeTimeout
	// With few members no others confirm a suspicion, so its greatest time is the one that counts.
	s.SuspicionMult, s.SuspicionMaxTimeoutMult = 2, 1
	s.TCPTimeout = streamTimeout
	s.PushPullInterval = WholeInterval
	// A node that is made anew with the name of a dead one, at another address, is welcome after this time.
	s.DeadNodeReclaimTime = 30 * time.Second
	s.EnableCompression = false // our messages are short and binary; LZW costs more than it saves
	s.HandoffQueueDepth = 8192  // bursts of a thousand transfers
	s.Delegate, s.Events, s.Conflict = delegate{c}, events{c}, events{c}
	s.Logger = quietLog(c.log)
	return s, nil
}

// meet joins every peer that does not answer, again and again: who was cut off comes back by itself.
func (c *Channel) meet(ctx context.Context, list *memberlist.Memberlist) {
	ticker := time.NewTicker(meetInterval)
	defer ticker.Stop()
	for {
		for _, p := range c.Peers() {
			if p.Alive || ctx.Err() != nil {
				continue
			}
			if _, err := list.Join([]string{c.at(p.Address)}); err != nil {
				c.log.Debug("meeting a peer", "peer", p.Address, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *Channel) at(addr netip.Addr) string {
	return netip.AddrPortFrom(addr, uint16(c.cfg.Port)).String()
}

// Tell sends a message to every peer: up to MaxDatagram bytes at once and unasked for, a longer one over TCP by another goroutine. It
// never waits for a peer. Before Run and after it, it does nothing.
func (c *Channel) Tell(topic Topic, message []byte) {
	list := c.list.Load()
	if list == nil {
		return
	}
	b := marshal(c.cfg.Node, topic, message)
	switch {
	case len(message) > MaxMessage:
		c.drop(DropLong)
	case len(message) > MaxDatagram:
		select {
		case c.long <- b:
		default:
			c.drop(DropFull)
		}
	default:
		// To all that are configured, alive or not: whoever is only suspected needs the message the most.
		for _, addr := range c.cfg.Peers {
			c.count(list.SendToAddress(memberlist.Address{Addr: c.at(addr)}, b))
		}
	}
}

func (c *Channel) sendLong(ctx context.Context, list *memberlist.Memberlist) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-c.long:
			for _, m := range list.Members() {
				if m.Name != c.cfg.Node {
					c.count(list.SendReliable(m, b))
				}
			}
		}
	}
}

func (c *Channel) count(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.stats.Dropped[DropUnsent]++
		return
	}
	c.stats.Sent++
}

func (c *Channel) drop(why Drop) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Dropped[why]++
}

// Peers returns all peers: the configured ones, met or not, and whoever has joined beside them.
func (c *Channel) Peers() []Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.peers), func(a, b Peer) int { return a.Address.Compare(b.Address) })
}

// Alive returns the peers that answer now.
func (c *Channel) Alive() []Peer {
	return slices.DeleteFunc(c.Peers(), func(p Peer) bool { return !p.Alive })
}

// Stats returns the counts since the start.
func (c *Channel) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Dropped = maps.Clone(s.Dropped)
	return s
}

// delegate is memberlist's way to us.
type delegate struct{ c *Channel }

// NodeMeta implements memberlist.Delegate.
func (delegate) NodeMeta(int) []byte { return nil }

// GetBroadcasts implements memberlist.Delegate. We do not gossip: everybody is told directly.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// NotifyMsg implements memberlist.Delegate.
func (d delegate) NotifyMsg(b []byte) {
	from, topic, body, ok := parse(b)
	share, known := d.c.shares[topic]
	switch {
	case !ok:
		d.c.drop(DropMalformed)
	case !known:
		d.c.drop(DropTopic)
	default:
		d.c.received()
		share.Changed(from, body)
	}
}

func (c *Channel) received() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Received++
}

// LocalState implements memberlist.Delegate.
func (d delegate) LocalState(bool) []byte {
	var parts []part
	for _, topic := range slices.Sorted(maps.Keys(d.c.shares)) {
		if whole := d.c.shares[topic].Whole; whole != nil {
			if body := whole(); body != nil {
				parts = append(parts, part{topic, body})
			}
		}
	}
	return marshalWhole(d.c.cfg.Node, parts)
}

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	from, parts, ok := parseWhole(b)
	if !ok {
		d.c.drop(DropMalformed)
		return
	}
	for _, p := range parts {
		if share, known := d.c.shares[p.topic]; known && share.Merge != nil {
			share.Merge(from, p.body)
		} else {
			d.c.drop(DropTopic)
		}
	}
}

// events keeps who is alive.
type events struct{ c *Channel }

// NotifyJoin implements memberlist.EventDelegate.
func (e events) NotifyJoin(n *memberlist.Node) { e.note(n, true) }

// NotifyLeave implements memberlist.EventDelegate.
func (e events) NotifyLeave(n *memberlist.Node) { e.note(n, false) }

// NotifyUpdate implements memberlist.EventDelegate.
func (e events) NotifyUpdate(*memberlist.Node) {}

// NotifyConflict implements memberlist.ConflictDelegate.
func (e events) NotifyConflict(existing, other *memberlist.Node) {
	e.c.log.Warn("two appliances have one name; give each a node of its own", "node", existing.Name, "first", existing.Address(), "second", other.Address())
}

func (e events) note(n *memberlist.Node, alive bool) {
	addr, ok := netip.AddrFromSlice(n.Addr)
	if !ok || n.Name == e.c.cfg.Node {
		return
	}
	addr = addr.Unmap()
	e.c.mu.Lock()
	e.c.peers[addr] = Peer{Name: n.Name, Address: addr, Alive: alive, Since: time.Now()}
	e.c.mu.Unlock()
	if alive {
		e.c.log.Info("a peer is there", "peer", n.Name, "address", addr)
	} else {
		e.c.log.Warn("a peer is gone", "peer", n.Name, "address", addr)
	}
}
