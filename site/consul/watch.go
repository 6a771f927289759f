package consul

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"everboot/site"
)

const (
	// wait is for how long a blocking query waits for a change; Consul adds up to a sixteenth. It is short because Consul 1.19 overlooks one
	// kind of change: when a folder is deleted with the folder above it after a key of it was deleted alone, the folder's index is
	// that of the single key, which is older, and the query goes on waiting. The next one sees the truth. slack is for the answer itself.
	wait  = 10 * time.Second
	slack = 10 * time.Second
	// pause is the least time between two answers of one query: a folder that changes all the time is read five times a second.
	pause = 200 * time.Millisecond
)

// watch makes one attempt after the other until ctx ends.
func (r *Registry) watch(ctx context.Context, events chan<- event) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		began := time.Now()
		err := r.attempt(ctx, events)
		r.transport.CloseIdleConnections() // they may lead to an agent that is no more
		if !send(ctx, events, event{lost: err}) {
			return
		}
		if errors.Is(err, errNewLeader) || time.Since(began) > lastBackoff {
			backoff = firstBackoff
		}
		if !sleep(ctx, backoff) {
			return
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// attempt watches everything until something fails, and says what. Its goroutines have ended when it returns.
func (r *Registry) attempt(ctx context.Context, events chan<- event) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	start := func(f func(context.Context) error) {
		group.Go(func() { cancel(f(ctx)) }) // the first error counts
	}
	start(func(ctx context.Context) error { return r.heartbeat(ctx, events) })
	start(func(ctx context.Context) error { return r.watchCatalog(ctx, events) })
	for _, k := range kinds {
		start(func(ctx context.Context) error { return r.watchFolder(ctx, k, events) })
	}
	group.Wait()
	return context.Cause(ctx)
}

// errNewLeader ends an attempt: queries that wait at the old leader may wait in vain.
var errNewLeader = errors.New("the Consul servers have a new leader")

// heartbeat asks who leads, and ends when nobody has led for the grace or when the leader changed.
func (r *Registry) heartbeat(ctx context.Context, events chan<- event) error {
	last, leader := time.Now(), ""
	for {
		now, err := r.leader(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && leader != "" && now != leader:
			return errNewLeader
		case err == nil:
			last, leader = time.Now(), now
			if !send(ctx, events, event{beat: true}) {
				return ctx.Err()
			}
		case time.Since(last) > grace:
			return err
		case !send(ctx, events, event{slow: err}):
			return ctx.Err()
		}
		if !sleep(ctx, beatEvery) {
			return ctx.Err()
		}
	}
}

func (r *Registry) leader(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	leader, err := r.client.Status().LeaderWithQueryOptions(new(api.QueryOptions).WithContext(ctx))
	if err == nil && leader == "" {
		err = errors.New("no server leads")
	}
	return leader, r.cfg.explain("asking who leads", err)
}

// watchFolder sends what a folder holds, and again whenever it changed.
func (r *Registry) watchFolder(ctx context.Context, kind site.Kind, events chan<- event) error {
	prefix := r.cfg.folder(kind)
	return r.follow(ctx, "reading "+prefix, func(q *api.QueryOptions) (*api.QueryMeta, func() event, error) {
		pairs, meta, err := r.client.KV().List(prefix, q)
		if err == nil && len(pairs) == 0 {
			// Consul shows an empty folder to whom it does not know and who may not see it. Asked for one key it says so.
			_, _, err = r.client.KV().Get(prefix, new(api.QueryOptions).WithContext(q.Context()))
		}
		return meta, func() event {
			entries := make([]entry, 0, len(pairs))
			for _, p := range pairs {
				entries = append(entries, entry{strings.TrimPrefix(p.Key, prefix), p.Value, p.ModifyIndex})
			}
			return event{kind: kind, part: readFolder(kind, r.cfg.Site, entries)}
		}, err
	}, events)
}

// watchCatalog sends which streamers' services are there, and again whenever that changed.
func (r *Registry) watchCatalog(ctx context.Context, events chan<- event) error {
	return r.follow(ctx, "reading the service "+serviceName, func(q *api.QueryOptions) (*api.QueryMeta, func() event, error) {
		services, meta, err := r.client.Health().Service(serviceName, "", false, q)
		return meta, func() event {
			alive := make(map[string]bool)
			for _, s := range services {
				if s.Service.Meta["site"] == r.cfg.Site && s.Checks.AggregatedStatus() != api.HealthCritical {
					alive[s.Service.Meta["name"]] = true
				}
			}
			return event{alive: alive}
		}, err
	}, events)
}

// follow repeats a blocking query. Its index starts at 0 and goes back to 0 when Consul's does, as Consul's rules for blocking queries want.
func (r *Registry) follow(ctx context.Context, doing string, query func(*api.QueryOptions) (*api.QueryMeta, func() event, error), events chan<- event) error {
	var index uint64
	for {
		bounded, cancel := context.WithTimeout(ctx, wait+wait/16+slack)
		meta, answer, err := query((&api.QueryOptions{WaitIndex: index, WaitTime: wait, RequireConsistent: index == 0}).WithContext(bounded))
		cancel()
		if err != nil {
			return r.cfg.explain(doing, err)
		}
		if meta.ResultsFilteredByACLs {
			return fmt.Errorf("%s: Consul at %s hides a part: let the token read key_prefix %q, service_prefix %q and node_prefix \"\"",
				doing, r.cfg.Address, "everboot/"+r.cfg.Site+"/", serviceName)
		}
		if index == 0 || meta.LastIndex != index {
			if !send(ctx, events, answer()) {
				return ctx.Err()
			}
		}
		if meta.LastIndex < index {
			index = 0
		} else {
			index = max(meta.LastIndex, 1) // 0 would not wait
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// send reports false if ctx ended first.
func send(ctx context.Context, events chan<- event, e event) bool {
	select {
	case events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
