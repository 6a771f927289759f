package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"everboot/site"
)

// DefaultTimeout is for how long a Client waits for an appliance. It is well under DefaultTTL, so that an appliance that
// does not answer never makes a streamer miss its time at the others.
const DefaultTimeout = time.Second

// ClientConfig says where a streamer announces itself.
type ClientConfig struct {
	Addresses []string      // of every appliance's API, such as http://198.18.0.2:8667
	Token     string        // of the API
	Timeout   time.Duration // for one announcement; 0: DefaultTimeout
	Log       *slog.Logger  // nil: none
	// Dial opens connections; nil: a net.Dialer. The lab dials from another network namespace.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Validate returns an error that says what to change.
func (c ClientConfig) Validate() error {
	if len(c.Addresses) == 0 {
		return errors.New("registry: give the API address of every appliance, such as http://198.18.0.2:8667")
	}
	seen := make(map[string]bool)
	for _, a := range c.Addresses {
		u, err := url.Parse(a)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" ||
			u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("registry: address %q: use http://HOST:PORT", a)
		}
		if seen[u.Host] {
			return fmt.Errorf("registry: address %q is there twice: take one away", a)
		}
		seen[u.Host] = true
	}
	if c.Timeout < 0 {
		return fmt.Errorf("registry: timeout %s: use more than 0, or 0 for %s", c.Timeout, DefaultTimeout)
	}
	return nil
}

// Client announces a streamer to every appliance of its site. It may be used by many goroutines.
type Client struct {
	cfg  ClientConfig
	http *http.Client

	mu      sync.Mutex
	follows map[string]Wish // the newest wish that an appliance told, by streamer
	failed  map[string]bool // appliances that did not take the last announcement
}

// NewClient returns a client.
func NewClient(cfg ClientConfig) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	return &Client{
		cfg: cfg, follows: make(map[string]Wish), failed: make(map[string]bool),
		http: &http.Client{
			// No proxy of the environment: appliances are in the same site, and the token is for them only.
			Transport: &http.Transport{DialContext: cfg.Dial, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return errors.New("an appliance does not redirect: mend its address")
			},
		},
	}, nil
}

// Announce tells every appliance at once what the streamer is, and returns the state that the operator wants of it: the
// newest that any of them knows. It is an error only if no appliance took it; what is wanted is then what was wanted last.
func (c *Client) Announce(ctx context.Context, s site.Streamer) (site.StreamerState, error) {
	a := announcement{Streamer: s}
	a.Registered, a.Check = false, site.Check{}
	c.mu.Lock()
	if w, ok := c.follows[s.Name]; ok {
		a.Follows = &w
	}
	c.mu.Unlock()
	body, err := json.Marshal(a)
	if err != nil {
		return c.wanted(s.Name), fmt.Errorf("announcing streamer %s: %w", s.Name, err)
	}
	err = c.all(ctx, func(ctx context.Context, address string) error {
		var got answer
		if err := c.do(ctx, http.MethodPost, address+StreamersPath, body, &got); err != nil {
			return err
		}
		c.hear(s.Name, got.Wish)
		return nil
	})
	if err != nil {
		err = fmt.Errorf("announcing streamer %s: no appliance took it: %w", s.Name, err)
	}
	return c.wanted(s.Name), err
}

// Withdraw tells every appliance that the streamer leaves. It is an error only if none of them heard it; those that did not
// notice it by themselves after a while.
func (c *Client) Withdraw(ctx context.Context, name string) error {
	err := c.all(ctx, func(ctx context.Context, address string) error {
		return c.do(ctx, http.MethodDelete, address+StreamersPath+"/"+url.PathEscape(name), nil, nil)
	})
	if err != nil {
		return fmt.Errorf("withdrawing streamer %s: no appliance heard it: %w", name, err)
	}
	return nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// hear keeps a wish if it is the newest.
func (c *Client) hear(name string, w Wish) {
	if w.State != site.Active && w.State != site.Draining || w.Stamp <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.newer(c.follows[name]) {
		c.follows[name] = w
	}
}

func (c *Client) wanted(name string) site.StreamerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return site.Effective(site.Active, c.follows[name].State)
}

// all asks every appliance at the same time and returns nil if one was content.
func (c *Client) all(ctx context.Context, ask func(ctx context.Context, address string) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	errs := make([]error, len(c.cfg.Addresses))
	var wg sync.WaitGroup
	for i, address := range c.cfg.Addresses {
		wg.Go(func() { errs[i] = ask(ctx, strings.TrimRight(address, "/")) })
	}
	wg.Wait()
	ok := false
	for i, err := range errs {
		ok = ok || err == nil
		c.note(c.cfg.Addresses[i], err)
	}
	if ok {
		return nil
	}
	return errors.Join(errs...)
}

// note logs when an appliance stops or starts to take announcements.
func (c *Client) note(address string, err error) {
	c.mu.Lock()
	before := c.failed[address]
	c.failed[address] = err != nil
	c.mu.Unlock()
	switch {
	case err != nil && !before:
		c.cfg.Log.Warn("an appliance does not take announcements", "appliance", address, "error", err)
	case err == nil && before:
		c.cfg.Log.Info("the appliance takes announcements again", "appliance", address)
	}
}

// maxAnswer bounds what an appliance may answer.
const maxAnswer = 64 << 10

// do sends one request and reads its answer into got unless that is nil.
func (c *Client) do(ctx context.Context, method, target string, body []byte, got any) error {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", target, err)
	}
	if res.StatusCode/100 != 2 {
		return refusal(target, res.StatusCode, answer)
	}
	if got == nil {
		return nil
	}
	if err := json.Unmarshal(answer, got); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", target, err)
	}
	return nil
}

// refusal makes an error of an answer that is not 2xx, with what the appliance says of it.
func refusal(target string, status int, answer []byte) error {
	var r refused
	if err := json.Unmarshal(answer, &r); err == nil && r.Error != "" {
		return fmt.Errorf("%s refuses: %s", target, r.Error)
	}
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return fmt.Errorf("%s refuses the token: give the one of its [api] in [registry] token", target)
	}
	return fmt.Errorf("%s answers %d %s", target, status, http.StatusText(status))
}
