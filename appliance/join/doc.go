// Package join makes a site's first appliance, and brings further ones into it. The node that is there already prints one line and waits; the new
// one is given that line. What the site keeps secret travels over TLS 1.3 to whoever knows the line, once. What is a node's own (its name,
// its addresses, its priority) never travels.
package join

import "time"

const (
	// DefaultPort is where a node waits for the one that joins.
	DefaultPort = 8668
	// DefaultValid is for how long a line is good.
	DefaultValid = time.Hour
	// FirstPriority and NextPriority are the VRRP priorities of the first appliance and of those that join.
	FirstPriority, NextPriority = 110, 100

	// ConfigFile is the configuration in an appliance's folder; the others are made beside it.
	ConfigFile      = "appliance.toml"
	peerKeyFile     = "peer.key"
	tokenFile       = "api.token"
	authorityFile   = "ca.pem"
	authorityKey    = "ca.key"
	certificateFile = "node.pem"
	certificateKey  = "node.key"
)
