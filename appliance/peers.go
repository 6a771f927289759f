package appliance

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/appliance/peers"
)

// PeersConfig names the other appliances of the site.
type PeersConfig struct {
	Addresses []netip.Addr `toml:"addresses"`
	Key       Secret       `toml:"key"` // the same on all; without one nothing is shared
}

func (c *Config) checkPeers() error {
	for i, a := range c.Peers.Addresses {
		if !a.Is4() {
			return fmt.Errorf("peers.addresses: %s: use the IPv4 address that the other appliance has itself", a)
		}
		if slices.Contains(c.Peers.Addresses[:i], a) {
			return fmt.Errorf("peers.addresses: %s stands there twice", a)
		}
		if slices.ContainsFunc(c.VIP.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return fmt.Errorf("peers.addresses: %s is the VIP; name the other appliance's own address", a)
		}
	}
	return nil
}

// shares reports whether this node shares soft state with others.
func (p PeersConfig) shares() bool { return len(p.Addresses) > 0 && !p.Key.IsZero() }

// peersConfig returns the channel's configuration; own is the node's own address.
func (c *Config) peersConfig(own netip.Addr) (peers.Config, error) {
	key, err := c.Peers.Key.Read()
	return peers.Config{Node: c.Node, Site: c.Site, Own: own, Peers: c.Peers.Addresses, Key: key}, err
}

// openPeers comes after the rooms: by then all shares are known.
func (w *worker) openPeers() error {
	if !w.cfg.Peers.shares() {
		return nil
	}
	cfg, err := w.cfg.peersConfig(w.own)
	if err != nil {
		return err
	}
	w.peers, err = peers.New(cfg, w.shares, w.log.With("room", "peers"))
	return err
}

// tell returns what a room calls to tell its peers something. It may be called before the channel is open.
func (w *worker) tell(topic peers.Topic) func([]byte) {
	return func(message []byte) {
		if w.peers != nil {
			w.peers.Tell(topic, message)
		}
	}
}

func (w *worker) peerStatus() []peers.Peer {
	if w.peers == nil {
		return nil
	}
	return w.peers.Peers()
}

// peerWarnings says what somebody should look at.
func (w *worker) peerWarnings() []string {
	if len(w.cfg.Peers.Addresses) > 0 && w.peers == nil {
		return []string{"peers.key is not set: nothing is shared with the other appliances, so what is under way breaks off when this node dies; " +
			"make one file and copy it to each: head -c 32 /dev/urandom | base64 > peer.key"}
	}
	var list []string
	for _, p := range w.peerStatus() {
		if p.Alive {
			continue
		}
		since := "since this node started"
		if !p.Since.IsZero() {
			since = "since " + p.Since.Format("2006-01-02 15:04:05")
		}
		list = append(list, fmt.Sprintf("appliance %s does not answer on the peer channel %s", prefixed(p.Name+" at ", p.Address.String()), since))
	}
	return list
}

// The names of the metrics of the peer channel.
const (
	metricPeerUp       = "everboot_peer_up" // label peer: its address
	metricPeerSent     = "everboot_peer_messages_sent_total"
	metricPeerReceived = "everboot_peer_messages_received_total"
	metricPeerDropped  = "everboot_peer_messages_dropped_total" // label reason
)

func (c collector) peers(send emit) {
	for _, p := range c.w.peers.Peers() {
		send(metricPeerUp, "Whether another appliance answers on the peer channel.", prometheus.GaugeValue, truth(p.Alive), "peer", p.Address.String())
	}
	s := c.w.peers.Stats()
	send(metricPeerSent, "Messages sent to other appliances.", prometheus.CounterValue, float64(s.Sent))
	send(metricPeerReceived, "Messages of other appliances.", prometheus.CounterValue, float64(s.Received))
	for reason, n := range s.Dropped {
		send(metricPeerDropped, "Messages of the peer channel that were dropped.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
}
