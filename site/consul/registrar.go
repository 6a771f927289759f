package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"everboot/site"
)

const (
	// DefaultSessionTTL is for how long Consul keeps a streamer that is silent; Consul itself takes up to twice as long, and 10 s is its least.
	DefaultSessionTTL = 15 * time.Second
	// sessionsEvery is how often a change of nothing but the count of sessions is written: counts change all the time, and each
	// write goes through the log of every Consul server.
	sessionsEvery = 5 * time.Second
	// announceTimeout bounds one announcement whose context has no end.
	announceTimeout = 3 * time.Second
	// deregisterAfter is when Consul forgets the service of a streamer that died without a word.
	deregisterAfter = "10m"
	// lockDelay is the least that Consul knows: its usual 15 s would keep a streamer that starts again from its own key.
	lockDelay = time.Millisecond
)

// RegistrarConfig says where a streamer announces itself.
type RegistrarConfig struct {
	Config
	SessionTTL time.Duration // 0: DefaultSessionTTL
}

// Registrar announces one streamer in Consul. It may be used by many goroutines.
type Registrar struct {
	cfg       RegistrarConfig
	client    *api.Client
	transport *http.Transport

	mu        sync.Mutex
	name      string // of the streamer, once it announced itself
	session   string
	renewed   time.Time // when session was
	written   []byte    // what the key holds; nil: not known
	last      site.Streamer
	writtenAt time.Time
	service   *api.AgentServiceRegistration // what is registered; nil: nothing
	beat      time.Time                     // when its check was last told
	wanted    site.StreamerState
}

// NewRegistrar returns a registrar. It does not talk to Consul yet.
func NewRegistrar(cfg RegistrarConfig) (*Registrar, error) {
	client, transport, err := newClient(&cfg.Config)
	if err != nil {
		return nil, err
	}
	if cfg.SessionTTL < 0 {
		return nil, fmt.Errorf("consul: session TTL %s: use 10s or more, or 0 for %s", cfg.SessionTTL, DefaultSessionTTL)
	}
	if cfg.SessionTTL == 0 {
		cfg.SessionTTL = DefaultSessionTTL
	}
	return &Registrar{cfg: cfg, client: client, transport: transport, wanted: site.Active}, nil
}

// Close closes idle connections. It withdraws nothing.
func (r *Registrar) Close() { r.transport.CloseIdleConnections() }

// Announce says what the streamer is and returns the state that the operator wants of it. Repeat it each second or so, and at least
// three times in a session's TTL. When nothing changed it costs one read, and every third of the TTL a renewal of session and check.
// If Consul cannot be reached it is an error, and what is wanted is what was wanted last.
func (r *Registrar) Announce(ctx context.Context, s site.Streamer) (site.StreamerState, error) {
	s.Registered, s.Check = false, site.Check{}
	if err := site.CheckStreamer(s, r.cfg.Site); err != nil {
		return site.Active, err
	}
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.name != "" && r.name != s.Name {
		return r.wanted, fmt.Errorf("announcing streamer %s: this registrar announces %s: make another", s.Name, r.name)
	}
	r.name = s.Name
	now := time.Now()
	err := r.hold(ctx, now, s)
	if err == nil {
		err = errors.Join(r.register(ctx, now, s), r.ask(ctx))
	}
	if err != nil {
		r.transport.CloseIdleConnections()
	}
	return r.wanted, err
}

// hold keeps the session alive and writes the announcement if it changed.
func (r *Registrar) hold(ctx context.Context, now time.Time, s site.Streamer) error {
	if err := r.renew(ctx, now); err != nil {
		return err
	}
	value, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("announcing streamer %s: %w", s.Name, err)
	}
	if bytes.Equal(value, r.written) || r.written != nil && onlySessions(s, r.last) && now.Sub(r.writtenAt) < sessionsEvery {
		return nil
	}
	if err := r.acquire(ctx, s, value); err != nil {
		return err
	}
	r.written, r.writtenAt, r.last = value, now, s
	r.last.Addresses, r.last.Replicas = slices.Clone(s.Addresses), slices.Clone(s.Replicas)
	return nil
}

// onlySessions reports whether a and b differ in nothing but their sessions.
func onlySessions(a, b site.Streamer) bool {
	a.Sessions = b.Sessions
	return reflect.DeepEqual(a, b)
}

func (r *Registrar) key() string { return r.cfg.folder(kindStreamer) + r.name }

// renew keeps the session, or makes one. Each time it also looks whether the key is still there: somebody may have deleted it.
func (r *Registrar) renew(ctx context.Context, now time.Time) error {
	q := new(api.WriteOptions).WithContext(ctx)
	if r.session != "" && now.Sub(r.renewed) >= r.cfg.SessionTTL/3 {
		session, _, err := r.client.Session().Renew(r.session, q)
		if err != nil {
			return r.cfg.explain("renewing the session of streamer "+r.name, err)
		}
		pair, _, err := r.client.KV().Get(r.key(), new(api.QueryOptions).WithContext(ctx))
		if err != nil {
			return r.cfg.explain("reading "+r.key(), err)
		}
		if session == nil {
			r.cfg.Log.Info("Consul ended the session: making another", "streamer", r.name)
			r.session = ""
		}
		if pair == nil || pair.Session != r.session {
			r.written = nil
		}
		r.renewed = now
	}
	if r.session != "" {
		return nil
	}
	id, _, err := r.client.Session().CreateNoChecks(&api.SessionEntry{
		Name: serviceName + "-" + r.name, TTL: r.cfg.SessionTTL.String(), Behavior: api.SessionBehaviorDelete, LockDelay: lockDelay,
	}, q)
	if err != nil {
		return r.cfg.explain("making a session for streamer "+r.name, err)
	}
	r.session, r.renewed, r.written = id, now, nil
	return nil
}

// acquire writes the key under the session.
func (r *Registrar) acquire(ctx context.Context, s site.Streamer, value []byte) error {
	pair := &api.KVPair{Key: r.key(), Value: value, Session: r.session}
	q := new(api.WriteOptions).WithContext(ctx)
	ok, _, err := r.client.KV().Acquire(pair, q)
	if err == nil && !ok {
		if err := r.evict(ctx, s); err != nil {
			return err
		}
		// Consul's leader counts the lock delay from when it applied the end of the old session: a fast machine asks too early.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * lockDelay):
		}
		ok, _, err = r.client.KV().Acquire(pair, q)
	}
	if err != nil {
		// The session may have ended with the servers that knew it; the next announcement makes another.
		var status api.StatusError
		if errors.As(err, &status) && status.Code == http.StatusInternalServerError {
			r.session = ""
		}
		return r.cfg.explain("writing "+r.key(), err)
	}
	if !ok {
		return fmt.Errorf("writing %s: Consul does not give the key yet: it comes with a later announcement", r.key())
	}
	return nil
}

// evict ends the session that holds our key if it is of an earlier life of this streamer: one at the same addresses.
func (r *Registrar) evict(ctx context.Context, s site.Streamer) error {
	pair, _, err := r.client.KV().Get(r.key(), (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err != nil {
		return r.cfg.explain("reading "+r.key(), err)
	}
	if pair == nil || pair.Session == "" || pair.Session == r.session {
		return nil
	}
	holder, err := readStreamer(r.cfg.Site, entry{key: r.name, value: pair.Value})
	if err == nil && !slices.Equal(holder.Addresses, s.Addresses) {
		return fmt.Errorf("announcing streamer %s: one of this name is at %s: give each streamer a node name of its own; if that one is dead, its name is free in %s",
			r.name, holder.Addresses[0], 2*r.cfg.SessionTTL)
	}
	_, err = r.client.Session().Destroy(pair.Session, new(api.WriteOptions).WithContext(ctx))
	return r.cfg.explain("ending the earlier session of streamer "+r.name, err)
}

// register keeps the service and its check.
func (r *Registrar) register(ctx context.Context, now time.Time, s site.Streamer) error {
	service := &api.AgentServiceRegistration{
		ID: serviceName + "-" + s.Name, Name: serviceName,
		Address: s.Addresses[0].Addr().String(), Port: int(s.Addresses[0].Port()),
		Meta: map[string]string{"site": s.Site, "name": s.Name},
		Check: &api.AgentServiceCheck{
			TTL: r.cfg.SessionTTL.String(), Status: api.HealthPassing, DeregisterCriticalServiceAfter: deregisterAfter,
		},
	}
	if !reflect.DeepEqual(service, r.service) {
		options := api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx)
		if err := r.client.Agent().ServiceRegisterOpts(service, options); err != nil {
			return r.cfg.explain("registering the service of streamer "+s.Name, err)
		}
		r.service, r.beat = service, now
		return nil
	}
	if now.Sub(r.beat) < r.cfg.SessionTTL/3 {
		return nil
	}
	q := new(api.QueryOptions).WithContext(ctx)
	if err := r.client.Agent().UpdateTTLOpts("service:"+service.ID, "announces itself", api.HealthPassing, q); err != nil {
		r.service = nil // an agent that started anew has forgotten it
		return r.cfg.explain("updating the check of streamer "+s.Name, err)
	}
	r.beat = now
	return nil
}

// ask reads what is wanted. Any server may answer: an old wish is followed a moment longer.
func (r *Registrar) ask(ctx context.Context) error {
	path := r.cfg.folder(site.KindStreamerState) + r.name
	pair, _, err := r.client.KV().Get(path, (&api.QueryOptions{AllowStale: true}).WithContext(ctx))
	if err != nil {
		return r.cfg.explain("reading "+path, err)
	}
	if pair == nil {
		r.wanted = site.Active
		return nil
	}
	want, err := readWish(r.name, pair.Value)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	r.wanted = want
	return nil
}

// Withdraw takes the streamer out of Consul at once.
func (r *Registrar) Withdraw(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.name != "" && r.name != name {
		return fmt.Errorf("withdrawing streamer %s: this registrar announces %s", name, r.name)
	}
	var errs []error
	if r.session != "" {
		// The session deletes its key.
		_, err := r.client.Session().Destroy(r.session, new(api.WriteOptions).WithContext(ctx))
		errs = append(errs, r.cfg.explain("ending the session of streamer "+name, err))
	}
	if r.service != nil {
		err := r.client.Agent().ServiceDeregisterOpts(r.service.ID, new(api.QueryOptions).WithContext(ctx))
		errs = append(errs, r.cfg.explain("deregistering the service of streamer "+name, err))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.name, r.session, r.written, r.service = "", "", nil, nil
	return nil
}
