package appliance

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"everboot/appliance/peers"
	"everboot/site"
)

// connections are the TCP connections that targets have at the floating addresses: at this node, and, as far as they told us, at its peers.
// Whoever takes an address over tells the targets of its former owner's connections that these are gone.
//
// A message is the format byte, what happened, and the connection; the whole is the format byte and the connections. A lost "opened" costs
// that target its own time-out, a lost "closed" one packet; the whole mends both.
type connections struct {
	floating []netip.Addr
	tell     func([]byte)
	now      func() time.Time

	mu    sync.Mutex
	own   map[site.Connection]struct{}
	peers map[string]map[site.Connection]struct{} // by node
	// former are those that this node's last worker had when it died, until formerEnd. The peers must not forget them
	// because this one has started anew: it may not be the one who gets the address.
	former    []site.Connection
	formerEnd time.Time
}

const (
	connectionsFormat = 1
	opened            = 1
	closed            = 2

	// maxConnections bounds what is kept of one node, maxNodes for how many.
	maxConnections = 1 << 16
	maxNodes       = 16
	// formerTime is longer than any election takes.
	formerTime = time.Minute
)

func newConnections(floating []netip.Addr, former []site.Connection, tell func([]byte), now func() time.Time) *connections {
	return &connections{
		floating: floating, tell: tell, now: now, former: former, formerEnd: now().Add(formerTime),
		own: make(map[site.Connection]struct{}), peers: make(map[string]map[site.Connection]struct{}),
	}
}

// openConnections comes before the rooms that take connections.
func (w *worker) openConnections() {
	// Kept connections need somebody who tells their targets when the address has moved: a peer, or this node's next worker.
	if len(w.cfg.Peers.Addresses) == 0 || w.cfg.Peers.shares() {
		w.keeper = w.opts.Keeper
	}
	w.connections = newConnections(w.cfg.VIP.floating(), w.keeper.Former(), w.tell(peers.Connections), time.Now)
	w.shares[peers.Connections] = peers.Share{
		Changed: w.connections.peerChanged, Whole: w.connections.peerWhole, Merge: w.connections.peerMerge,
	}
}

// opened is what the rooms call with each TCP connection that they take; what it returns they call when it is closed.
func (w *worker) opened(conn net.Conn) (closed func()) {
	socket, ok := conn.(syscall.Conn)
	local, okLocal := conn.LocalAddr().(*net.TCPAddr)
	remote, okRemote := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !okLocal || !okRemote {
		return func() {}
	}
	c := site.Connection{Local: unmapped(local.AddrPort()), Remote: unmapped(remote.AddrPort())}
	end, floats := w.connections.Open(c)
	if !floats {
		return func() {}
	}
	drop := w.keeper.Keep(socket, c)
	return func() { drop(); end() }
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// Open notes a connection at a floating address and tells the peers; the returned function notes its end. Of other addresses it returns false.
func (c *connections) Open(conn site.Connection) (end func(), floats bool) {
	if !slices.Contains(c.floating, conn.Local.Addr()) {
		return func() {}, false
	}
	c.mu.Lock()
	full := len(c.own) >= maxConnections
	if !full {
		c.own[conn] = struct{}{}
	}
	c.mu.Unlock()
	if full {
		return func() {}, true
	}
	c.tell(conn.Append([]byte{connectionsFormat, opened}))
	return func() {
		c.mu.Lock()
		delete(c.own, conn)
		c.mu.Unlock()
		c.tell(conn.Append([]byte{connectionsFormat, closed}))
	}, true
}

// Lost returns the connections that others had: the peers, and the worker of this node that died.
func (c *connections) Lost() []site.Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.Clone(c.formerNow())
	for _, of := range c.peers {
		list = slices.AppendSeq(list, maps.Keys(of))
	}
	return list
}

func (c *connections) formerNow() []site.Connection {
	if !c.now().Before(c.formerEnd) {
		c.former = nil
	}
	return c.former
}

// peerChanged, peerWhole and peerMerge are the share of the peer channel.
func (c *connections) peerChanged(from string, b []byte) {
	if len(b) < 2 || b[0] != connectionsFormat {
		return
	}
	conn, ok := site.ParseConnection(b[2:])
	c.mu.Lock()
	defer c.mu.Unlock()
	of, known := c.peers[from]
	switch {
	case !ok:
	case b[1] == closed:
		delete(of, conn)
	case b[1] == opened && !known && len(c.peers) < maxNodes:
		c.peers[from] = map[site.Connection]struct{}{conn: {}}
	case b[1] == opened && known && len(of) < maxConnections:
		of[conn] = struct{}{}
	}
}

func (c *connections) peerWhole() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	former := c.formerNow()
	b := append(make([]byte, 0, 1+(len(c.own)+len(former))*site.ConnectionLen), connectionsFormat)
	for _, conn := range former {
		b = conn.Append(b)
	}
	for conn := range c.own {
		b = conn.Append(b)
	}
	return b
}

func (c *connections) peerMerge(from string, b []byte) {
	if len(b) == 0 || b[0] != connectionsFormat {
		return
	}
	of := make(map[site.Connection]struct{})
	for part := range slices.Chunk(b[1:], site.ConnectionLen) {
		if conn, ok := site.ParseConnection(part); ok && len(of) < maxConnections {
			of[conn] = struct{}{}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.peers[from]; known || len(c.peers) < maxNodes {
		c.peers[from] = of
	}
}
