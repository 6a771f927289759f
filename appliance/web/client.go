package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"everboot/site"
	"everboot/streamer"
)

// Client asks an appliance's API.
type Client struct {
	URL   string // http://host:8667
	Token string
	// Dial opens connections; nil: a net.Dialer. The lab dials from another network namespace.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// More says that the next object of the kind is written at once: the appliance need not wait until its view shows this one. Without it a thousand
	// objects in Consul take minutes.
	More bool
}

const (
	requestTime = 10 * time.Second
	maxAnswer   = 256 << 20 // ten thousand devices' status is a few megabytes
)

// Status returns the site at a glance.
func (c Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.do(ctx, http.MethodGet, "/api/v1/status", nil, &s)
}

// Explain returns what a target gets, and why; who is a MAC or an IP address.
func (c Client) Explain(ctx context.Context, who string) (Explanation, error) {
	var e Explanation
	return e, c.do(ctx, http.MethodGet, "/api/v1/explain?who="+url.QueryEscape(who), nil, &e)
}

// Device returns what a target gets and streams, and how its last boots went; who is a MAC, an IP address or a name.
func (c Client) Device(ctx context.Context, who string) (DeviceStatus, error) {
	var d DeviceStatus
	return d, c.do(ctx, http.MethodGet, "/api/v1/device?who="+url.QueryEscape(who), nil, &d)
}

// Rebalance moves targets so that the streamers share them evenly, for some seconds; what is left to do stands in the answer.
func (c Client) Rebalance(ctx context.Context) (streamer.Rebalancing, error) {
	var r streamer.Rebalancing
	return r, c.do(ctx, http.MethodPost, "/api/v1/rebalance", nil, &r)
}

// Leases returns what DHCP knows of each address.
func (c Client) Leases(ctx context.Context) ([]Lease, error) {
	var list []Lease
	return list, c.do(ctx, http.MethodGet, "/api/v1/leases", nil, &list)
}

// ReleaseLease frees an address.
func (c Client) ReleaseLease(ctx context.Context, addr netip.Addr) error {
	return c.do(ctx, http.MethodDelete, "/api/v1/leases/"+addr.String(), nil, nil)
}

// Put writes an object into the registry.
func (c Client) Put(ctx context.Context, kind site.Kind, key string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding %s %s: %w", kind, key, err)
	}
	return c.do(ctx, http.MethodPut, c.objectPath(kind, key), body, nil)
}

// Delete removes an object from the registry.
func (c Client) Delete(ctx context.Context, kind site.Kind, key string) error {
	return c.do(ctx, http.MethodDelete, c.objectPath(kind, key), nil, nil)
}

// ReleaseVIP makes the appliance hand the floating addresses over to another one, and returns when that one has them.
func (c Client) ReleaseVIP(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/api/v1/vip/release", nil, nil)
}

func (c Client) objectPath(kind site.Kind, key string) string {
	path := "/api/v1/" + url.PathEscape(string(kind)) + "/" + url.PathEscape(key)
	if c.More {
		path += "?" + moreComes
	}
	return path
}

func (c Client) do(ctx context.Context, method, path string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("--api %q is not a URL such as http://198.18.0.2:8667: %w", c.URL, err)
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	// No proxy of the environment: an appliance is in the same site, and the token is for it only.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.Dial}}
	response, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("asking the appliance at %s: %w; is it running there? name another with --api", c.URL, errors.Unwrap(err))
	}
	defer response.Body.Close()
	answer := io.LimitReader(response.Body, maxAnswer)
	if response.StatusCode >= 300 {
		var p problem
		if json.NewDecoder(answer).Decode(&p) != nil || p.Error == "" {
			p.Error = response.Status
		}
		return fmt.Errorf("the appliance at %s: %s", c.URL, p.Error)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(answer).Decode(into); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", c.URL, err)
	}
	return nil
}
