// Package peers is the channel over which the appliances of a site share what would be lost with one of them: open TFTP transfers, TCP
// connections at the floating address, fresh leases. It decides nothing, and nothing needs it to be up: a message may be lost, come late or
// come twice, and now and then the whole is exchanged (memberlist's push/pull), which mends that.
//
// Everything is encrypted and authenticated with a key that all appliances of the site have (AES-256-GCM). Somebody on the wire can still
// send an old datagram again: a share must bear that.
package peers

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Topic tells the shares of the rooms apart on the wire. A number is never used for another thing.
type Topic uint8

// The topics.
const (
	Connections Topic = 1 // TCP connections at the floating address
	Transfers   Topic = 2 // TFTP
	Leases      Topic = 3 // DHCP
	Running     Topic = 4 // what devices run, for the director
	Objects     Topic = 5 // of the embedded registry: devices, collections, vDisks
	Events      Topic = 6 // of devices, for their timelines
	Media       Topic = 7 // what targets say of the boot media in them
	Wishes      Topic = 8 // what was said of streamers while Consul is away
)

// Share is what one room has to tell. Changed and Merge are called by several goroutines at once; they must return soon and copy what they
// keep. from is the node name of the peer.
type Share struct {
	// Changed takes one message. It may come twice, late, out of order, or never.
	Changed func(from string, message []byte)
	// Whole returns everything that a peer needs which knows nothing; nil for nothing. It is asked for when two peers meet and then every
	// WholeInterval. A share that makes up for losses itself leaves Whole and Merge out.
	Whole func() []byte
	// Merge takes what Whole returned on a peer.
	Merge func(from string, whole []byte)
}

const (
	// DefaultPort is that of UDP and TCP (memberlist's own).
	DefaultPort = 7946
	// MaxDatagram is the longest message, in bytes, that goes as one datagram: with memberlist's header, nonce and tag it fits an MTU of
	// 1400. A longer one goes over a TCP connection of its own.
	MaxDatagram = 1200
	// MaxMessage is the longest message that is sent at all, in bytes.
	MaxMessage = 1 << 20
	// WholeInterval is how often two peers exchange the whole.
	WholeInterval = 30 * time.Second
)

// Config says who the peers are. Everything but Port must be given.
type Config struct {
	Node  string
	Site  string
	Own   netip.Addr   // this node's own address; never a floating one
	Peers []netip.Addr // the other appliances' own addresses
	Key   string       // the secret that all appliances of the site have
	Port  int          // 0: DefaultPort
}

// Validate returns an error that says what is wrong.
func (c Config) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("peers: "+format, args...)) }
	if c.Node == "" || len(c.Node) > maxName {
		add("node name %q: use 1 to %d characters", c.Node, maxName)
	}
	if !c.Own.IsValid() {
		add("this node's own address is missing")
	}
	if c.Key == "" {
		add("no key is given; make one file and copy it to every appliance of the site")
	}
	for _, p := range c.Peers {
		if p == c.Own {
			add("%s is this node itself; name the other appliances", p)
		}
	}
	return errors.Join(errs...)
}

// secret derives the key of the wire. The site's name is in it: two sites that were given the same file stay strangers.
func (c Config) secret() ([]byte, error) {
	return hkdf.Key(sha256.New, []byte(c.Key), nil, "everboot peers of site "+c.Site, 32)
}

// Peer is another appliance.
type Peer struct {
	Name    string     `json:"name,omitempty"` // empty until it was first met
	Address netip.Addr `json:"address"`
	Alive   bool       `json:"alive"`
	Since   time.Time  `json:"since,omitzero"` // of Alive
}
