package consul

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/hashicorp/consul/api"

	"everboot/site"
)

const (
	// grace is for how long Consul may be silent before the registry is told as lost. Two heartbeats in a row can fail in it: one slow answer
	// of a busy machine is no loss, and neither is a quick election. A loss is told within 2 s.
	grace       = 1700 * time.Millisecond
	beatEvery   = 250 * time.Millisecond
	beatTimeout = 600 * time.Millisecond
	// firstBackoff to lastBackoff is the pause between attempts to reach Consul; it doubles. A ready Consul is found within lastBackoff.
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 2 * time.Second
	// writeTimeout bounds a write whose context has no end: Consul itself waits 7 s for a leader.
	writeTimeout = 8 * time.Second
)

// Registry reads and writes the content of a site in Consul.
type Registry struct {
	cfg       Config
	client    *api.Client
	transport *http.Transport
	ready     chan struct{}
}

// New returns a registry. It does not talk to Consul yet.
func New(cfg Config) (*Registry, error) {
	client, transport, err := newClient(&cfg)
	if err != nil {
		return nil, err
	}
	return &Registry{cfg: cfg, client: client, transport: transport, ready: make(chan struct{})}, nil
}

// Ready is closed once changed was called for the first time: with what Consul holds, or with Reachable false.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// event is what the watchers tell the owner: one of its fields.
type event struct {
	kind  site.Kind // of part
	part  part
	alive map[string]bool // not nil: what the catalog says
	beat  bool            // Consul has a leader
	slow  error           // a heartbeat failed; the next may not
	lost  error           // the attempt ended; every answer will come anew
}

// owner is what the goroutine of Run owns.
type owner struct {
	r        *Registry
	answers  answers
	fresh    map[site.Kind]bool // folders that answered in this attempt
	catalog  bool               // the catalog answered in this attempt
	told     site.Content
	about    site.Registry
	said     bool // changed was called
	lastErr  error
	silence  *time.Timer // since the last sign of life
	reported map[problem]bool
	changed  func(site.Content, site.Registry)
}

// Run watches Consul until ctx ends and returns nil then. It calls changed, from this goroutine only, with the whole content whenever that
// changed, and with the last content and Reachable false within about 2 s of losing Consul; if Consul was never reached the content is
// empty and means nothing. What changed is given is not changed afterwards, and must not be changed by it either. Run runs once.
func (r *Registry) Run(ctx context.Context, changed func(site.Content, site.Registry)) error {
	defer r.transport.CloseIdleConnections()
	events, done := make(chan event), make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(done)
		r.watch(ctx, events)
	}()
	defer func() { cancel(); <-done }()
	o := &owner{
		r: r, answers: answers{parts: make(map[site.Kind]part)}, fresh: make(map[site.Kind]bool),
		silence: time.NewTimer(grace), reported: make(map[problem]bool), changed: changed, lastErr: errors.New("no answer of Consul yet"),
	}
	defer o.silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			o.handle(e)
		case <-o.silence.C:
			o.unreachable()
		}
	}
}

// handle takes what the watchers say.
func (o *owner) handle(e event) {
	switch {
	case e.lost != nil:
		o.lastErr = e.lost
		clear(o.fresh)
		o.catalog = false
		return
	case e.slow != nil:
		o.lastErr = e.slow
		return
	case e.beat:
	case e.alive != nil:
		o.answers.alive, o.catalog = e.alive, true
	default:
		o.answers.parts[e.kind], o.fresh[e.kind] = e.part, true
	}
	if len(o.fresh) < len(kinds) || !o.catalog {
		return // until the whole is known again, what was known before counts
	}
	o.silence.Reset(grace)
	if !e.beat || !o.about.Reachable {
		o.tell()
	}
}

// tell calls changed if something did.
func (o *owner) tell() {
	c := o.answers.content()
	problems := o.answers.problems()
	about := site.Registry{Kind: kind, Reachable: true, Since: o.about.Since, Error: warning(problems)}
	o.logProblems(problems)
	if !o.about.Reachable {
		about.Since = time.Now()
		o.r.cfg.Log.Info("Consul is reachable", "address", o.r.cfg.Address)
	}
	if o.said && about == o.about && reflect.DeepEqual(c, o.told) {
		return
	}
	o.say(c, about)
}

// unreachable tells that Consul is lost.
func (o *owner) unreachable() {
	if o.said && !o.about.Reachable {
		return
	}
	o.r.cfg.Log.Warn("Consul is not reachable: what is known stays", "address", o.r.cfg.Address, "error", o.lastErr)
	o.say(o.told, site.Registry{Kind: kind, Since: time.Now(), Error: o.lastErr.Error()})
}

func (o *owner) say(c site.Content, about site.Registry) {
	o.told, o.about = c, about
	o.changed(c, about)
	if !o.said {
		o.said = true
		close(o.r.ready)
	}
}

// logProblems logs each problem once, and again when the key was written again.
func (o *owner) logProblems(problems []problem) {
	now := make(map[problem]bool, len(problems))
	for _, p := range problems {
		now[p] = true
		if !o.reported[p] {
			o.r.cfg.Log.Warn("leaving out a key of Consul", "key", o.r.cfg.folder(p.kind)+p.key, "error", p.text)
		}
	}
	o.reported = now
}

// Put writes an object. Watchers everywhere see it soon after Put returns.
func (r *Registry) Put(ctx context.Context, kind site.Kind, key string, value []byte) error {
	return r.write(ctx, kind, key, value, func(p *api.KVPair, o *api.WriteOptions) error {
		_, err := r.client.KV().Put(p, o)
		return err
	})
}

// Add is Put for an object that is not there; one that is stays as it is.
func (r *Registry) Add(ctx context.Context, kind site.Kind, key string, value []byte) error {
	return r.write(ctx, kind, key, value, func(p *api.KVPair, o *api.WriteOptions) error {
		_, _, err := r.client.KV().CAS(p, o) // index 0: only if there is none
		return err
	})
}

func (r *Registry) write(ctx context.Context, kind site.Kind, key string, value []byte, write func(*api.KVPair, *api.WriteOptions) error) error {
	if err := new(site.Content).AddObject(kind, key, value); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	path := r.cfg.folder(kind) + key
	err := write(&api.KVPair{Key: path, Value: value}, new(api.WriteOptions).WithContext(ctx))
	return r.cfg.explain("writing "+path, err)
}

// Delete takes an object away; that it is not there is no error. To delete the state that is wanted of a streamer is to want it active.
func (r *Registry) Delete(ctx context.Context, kind site.Kind, key string) error {
	if err := site.CheckKey(kind, key); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	path := r.cfg.folder(kind) + key
	_, err := r.client.KV().Delete(path, new(api.WriteOptions).WithContext(ctx))
	return r.cfg.explain("deleting "+path, err)
}
