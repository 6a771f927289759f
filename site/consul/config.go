// Package consul is the registry of a site that is kept in Consul.
//
// # Keys
//
// Everything of a site stands below everboot/SITE/ of the key-value store, one JSON value a key but for leases:
//
//	devices/MAC            site.Device
//	collections/NAME       site.Collection
//	vdisks/NAME            site.VDisk
//	streamer-states/NAME   "active" or "draining": what the operator wants
//	streamers/NAME         site.Streamer: what the streamer announces; held by a session of the streamer, gone with it
//	leases/ADDRESS/BLOCK   leases of a block of addresses, as the appliance with the address knows them (leases.EncodePage); not JSON
//	leases/ADDRESS/beat    written with each of them: that it lives
//
// Streamers also register the service everboot-streamer (id everboot-streamer-NAME, meta site and name) with a TTL check, so that they are
// seen with Consul's own tools. Replicas are in the key-value store because a service's meta holds 512 bytes a value.
//
// # What counts as true
//
// A streamer is in the content if its key is there, or if its service is there, not critical, and its key was there before: a session can be
// lost while its streamer is well. Consul's checks say no more than that; whether a streamer is up is for the site's own probes.
// Answers come from the leader or not at all: never from a cache, which can be empty when the leader's answer is not. An answer from which a
// missing right took something away is an error. A folder that the leader says is empty is told as empty.
//
// A value that cannot be read is left out, logged once, and named in the Error of site.Registry, which stays Reachable.
package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"everboot/site"
)

// kind is what site.Registry.Kind says of this registry.
const kind = "consul"

// serviceName is the service that every streamer registers.
const serviceName = "everboot-streamer"

// DialFunc opens connections to Consul in place of a net.Dialer.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Config says where Consul is and which site to read.
type Config struct {
	Address string       // of an agent, HOST:PORT or http(s)://HOST:PORT
	Token   string       // empty: what CONSUL_HTTP_TOKEN says
	Site    string       // names the folder
	Dial    DialFunc     // nil: the usual one
	Log     *slog.Logger // nil: none
}

// Validate returns an error that says what to change.
func (c Config) Validate() error {
	if err := site.CheckName("site", c.Site); err != nil {
		return err
	}
	scheme, host, found := strings.Cut(c.Address, "://")
	if !found {
		scheme, host = "http", c.Address
	}
	u, err := url.Parse(scheme + "://" + host)
	if err != nil || scheme != "http" && scheme != "https" || u.Host != host || u.Port() == "" {
		return fmt.Errorf("consul: address %q: use HOST:PORT such as 127.0.0.1:8500, or https://HOST:PORT", c.Address)
	}
	return nil
}

// dialTimeout is for how long a connection to the agent, which is on this machine or near, may take.
const dialTimeout = time.Second

// newClient returns a client and its transport, whose idle connections the caller closes.
func newClient(c *Config) (*api.Client, *http.Transport, error) {
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	transport := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: dialTimeout}
	var err error
	// Given a client, Consul's library no longer looks at CONSUL_CACERT and its sisters by itself.
	if transport.TLSClientConfig, err = api.SetupTLSConfig(&api.DefaultConfig().TLSConfig); err != nil {
		return nil, nil, fmt.Errorf("consul: %w", err)
	}
	client, err := api.NewClient(&api.Config{
		Address: c.Address, Scheme: "http", Token: c.Token, Transport: transport, HttpClient: &http.Client{Transport: transport},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("consul: %w", err)
	}
	return client, transport, nil
}

// folder returns the prefix of the site's keys of a kind.
func (c *Config) folder(kind site.Kind) string {
	return "everboot/" + c.Site + "/" + string(kind) + "/"
}

// kindStreamer is the folder of what streamers announce. It is no site.Kind: people do not put it.
const kindStreamer site.Kind = "streamers"

// explain makes an error of Consul one that a person can act on.
func (c *Config) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	var status api.StatusError
	if errors.As(err, &status) && status.Code == http.StatusForbidden {
		return fmt.Errorf("%s: Consul at %s refuses the token: it needs key_prefix %q and session_prefix \"\" write, service_prefix %q write: %w",
			doing, c.Address, "everboot/"+c.Site+"/", serviceName, err)
	}
	if errors.As(err, &status) && status.Code == http.StatusRequestEntityTooLarge {
		return fmt.Errorf("%s: the value is larger than the 512 KiB that Consul takes: %w", doing, err)
	}
	var network *net.OpError
	if errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: Consul at %s does not answer: start its agent, or mend address in [registry]: %w", doing, c.Address, err)
	}
	return fmt.Errorf("%s: Consul at %s: %w", doing, c.Address, err)
}
