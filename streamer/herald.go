package streamer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"everboot/site"
)

// announceTimeout bounds one announcement.
const announceTimeout = 3 * time.Second

// herald announces a streamer, so that a slow registry holds up nothing else.
type herald struct {
	registrar Registrar
	every     time.Duration
	log       *slog.Logger
	news      chan struct{}
	calling   sync.Mutex // one call at a time, so that no announcement arrives after the withdrawal

	mu        sync.Mutex
	latest    site.Streamer
	answered  []chan struct{}    // who waits until the latest was taken
	wanted    site.StreamerState // by the operator
	reachable bool
	said      bool // whether reachable was ever logged
}

func newHerald(r Registrar, every time.Duration, log *slog.Logger) *herald {
	return &herald{registrar: r, every: every, log: log, news: make(chan struct{}, 1)}
}

// tell announces s from now on. The channel closes when the registry has taken it.
func (h *herald) tell(s site.Streamer) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := make(chan struct{})
	h.latest = s
	h.answered = append(h.answered, taken)
	select {
	case h.news <- struct{}{}:
	default:
	}
	return taken
}

// run announces the latest news at once, and again when it failed.
func (h *herald) run(ctx context.Context) {
	for {
		var again <-chan time.Time
		if !h.isReachable() {
			again = time.After(h.every)
		}
		select {
		case <-ctx.Done():
			return
		case <-h.news:
		case <-again:
		}
		h.announce(ctx)
	}
}

func (h *herald) isReachable() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reachable
}

func (h *herald) announce(ctx context.Context) {
	h.calling.Lock()
	defer h.calling.Unlock()
	h.mu.Lock()
	s, waiting := h.latest, h.answered
	h.answered = nil
	if s.State == site.Active && h.wanted != "" {
		s.State = h.wanted // when we stop, we drain whatever the operator wants
	}
	h.mu.Unlock()
	if s.Name == "" {
		return
	}
	call, cancel := context.WithTimeout(ctx, announceTimeout)
	wanted, err := h.registrar.Announce(call, s)
	cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	if (err == nil) != h.reachable || !h.said {
		h.reachable, h.said = err == nil, true
		if err != nil {
			h.log.Warn("the registry does not take our announcement; we serve on", "error", err)
		} else {
			h.log.Info("announced", "streamer", s.Name, "replicas", len(s.Replicas))
		}
	}
	if err != nil {
		h.answered = append(waiting, h.answered...)
		return
	}
	for _, w := range waiting {
		close(w)
	}
	if wanted == "" {
		wanted = site.Active
	}
	if h.wanted != wanted && (h.wanted != "" || wanted == site.Draining) {
		h.log.Info("the operator changed our state", "state", string(wanted))
		select {
		case h.news <- struct{}{}: // say so at once
		default:
		}
	}
	h.wanted = wanted
}

// withdraw takes the streamer out. Nothing is announced after it.
func (h *herald) withdraw(ctx context.Context) error {
	h.mu.Lock()
	name := h.latest.Name
	h.latest = site.Streamer{}
	h.mu.Unlock()
	h.calling.Lock()
	defer h.calling.Unlock()
	if err := h.registrar.Withdraw(ctx, name); err != nil {
		return fmt.Errorf("withdrawing streamer %s: %w", name, err)
	}
	return nil
}
