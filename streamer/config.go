package streamer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"everboot/site"
)

// DirectorConfig is the settings of a Director. Every field has a default.
type DirectorConfig struct {
	// Listen are the addresses that take logins; ":3260" if empty. An address that the host does not have yet is fine.
	Listen []string
	// Hold is how long a login waits for a streamer: 14 s, one less than the login time-out of open-iscsi and iPXE's
	// command time-out, so that an initiator gets our answer and not its own time-out.
	Hold time.Duration
	// DialTimeout bounds the answer of a streamer to a login: 500 ms. Its kernel's answer to the connection is bounded by 200 ms.
	DialTimeout time.Duration
	// LoginTimeout bounds how long an initiator takes to send its first PDU: 5 s.
	LoginTimeout time.Duration
	// MaxLogins bounds connections that have not said who they are, and logins that are being held: 4096 each.
	MaxLogins int
	// DrainPace is the time between two sessions that leave a draining streamer: 10 ms.
	DrainPace time.Duration

	// Redirect sends open-iscsi to its streamer rather than forward it.
	Redirect bool
	// RebalanceAbove moves targets by itself when the busiest streamer has so much more than the mean, as a fraction; 0: never.
	RebalanceAbove float64
	// CHAP returns how a device must prove who it is; false: it need not. Nil: nobody need.
	CHAP func(site.MAC) (CHAP, bool)
	// Who returns which device has an address by reservation or lease; the zero MAC: nobody that is known. Nil: nobody is.
	Who func(netip.Addr) site.MAC
	// Tell is called with each change of what devices run, for PeerChanged of the other appliances' directors. It must not block.
	Tell func([]byte)

	// Opened is called with each connection that is taken, and what it returns when the connection is closed. Nil: nobody wants to know.
	Opened func(net.Conn) (closed func())

	// ListenFunc and Dial replace the host's network; tests and the lab use them.
	ListenFunc func(network, address string) (net.Listener, error)
	Dial       func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	defaultPort = ":3260"
	// connectTimeout bounds a connection to a streamer. A kernel answers within a millisecond; a lost SYN is sent again after 1 s only,
	// when another streamer or the next look has taken the login.
	connectTimeout = 200 * time.Millisecond
	// retryPause is the time between two looks for a streamer while a login is held. A change of the view ends it early.
	retryPause = 50 * time.Millisecond
	// failedPause is how long a streamer that could not be reached is passed over, so that a thousand logins at once do not each
	// wait for it. It is shorter than retryPause: a held login tries again each time.
	failedPause = 40 * time.Millisecond
)

// Validate returns an error that says which setting is wrong.
func (c DirectorConfig) Validate() error {
	for _, l := range c.Listen {
		if _, _, err := net.SplitHostPort(l); err != nil {
			return fmt.Errorf("director listen address %q: use ADDRESS:PORT or :PORT", l)
		}
	}
	if c.Hold < 0 || c.DialTimeout < 0 || c.LoginTimeout < 0 || c.DrainPace < 0 {
		return errors.New("director: a time is negative; leave it out for the default")
	}
	if c.RebalanceAbove < 0 {
		return errors.New("director: the imbalance is negative; leave it out and nothing moves by itself")
	}
	if c.MaxLogins < 0 {
		return errors.New("director: the bound of logins is negative; leave it out for the default")
	}
	return nil
}

func (c DirectorConfig) withDefaults() DirectorConfig {
	if len(c.Listen) == 0 {
		c.Listen = []string{defaultPort}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Hold, 14 * time.Second},
		{&c.DialTimeout, 500 * time.Millisecond},
		{&c.LoginTimeout, 5 * time.Second},
		{&c.DrainPace, 10 * time.Millisecond},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Opened == nil {
		c.Opened = func(net.Conn) func() { return func() {} }
	}
	if c.MaxLogins == 0 {
		c.MaxLogins = 4096
	}
	if c.CHAP == nil {
		c.CHAP = func(site.MAC) (CHAP, bool) { return CHAP{}, false }
	}
	if c.Tell == nil {
		c.Tell = func([]byte) {}
	}
	if c.ListenFunc == nil {
		c.ListenFunc = listen
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	return c
}
