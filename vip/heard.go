package vip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"sync"
	"time"

	"everboot/internal/durable"
	"everboot/vip/vrrp"
)

// Heard keeps on disk which number each sender of sealed advertisements has come to, so that a router that starts anew takes none
// for new that its peers have sent long ago. What was heard in the last moments before a crash is not in it.
type Heard struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	routers map[string]map[netip.Addr]uint64 // by the router's name
	used    map[string]bool                  // what is not leaves the file
	dirty   bool
}

const (
	// heardPace is how often the file is written while something is heard.
	heardPace = 5 * time.Second
	// maxHeard bounds the file that is read: 255 routers with vrrp.MaxSenders each have 600 kB.
	maxHeard = 4 << 20
)

// OpenHeard reads the file. One that is not there, or cannot be read, counts as empty.
func OpenHeard(path string, log *slog.Logger) *Heard {
	h := &Heard{path: path, log: log, routers: map[string]map[netip.Addr]uint64{}, used: map[string]bool{}}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h
	}
	var text []byte
	if err == nil && info.Size() > maxHeard {
		err = fmt.Errorf("it has %d bytes", info.Size())
	}
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err == nil {
		err = json.Unmarshal(text, &h.routers)
	}
	if err != nil {
		log.Warn("what peers have sent cannot be read; old advertisements of theirs may pass for new ones once", "file", path, "error", err)
		h.routers = map[string]map[netip.Addr]uint64{}
	}
	return h
}

// of returns what a router has heard, for vrrp.NewAuth.
func (h *Heard) of(name string) map[netip.Addr]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.used[name] = true
	return maps.Clone(h.routers[name])
}

// note keeps what a router has heard by now. It does not wait for the disk.
func (h *Heard) note(name string, a *vrrp.Auth) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.routers[name], h.dirty = a.Heard(h.routers[name]), true
}

// Run writes the file until ctx ends, and once more then.
func (h *Heard) Run(ctx context.Context) {
	told := false
	for pace := time.NewTicker(heardPace); ; {
		last := false
		select {
		case <-ctx.Done():
			pace.Stop()
			last = true
		case <-pace.C:
		}
		err := h.save()
		if err != nil && !told {
			h.log.Error("what peers have sent cannot be saved: after a restart old advertisements of theirs may pass for new ones once", "error", err)
		}
		if told = err != nil; last {
			return
		}
	}
}

func (h *Heard) save() error {
	h.mu.Lock()
	if !h.dirty {
		h.mu.Unlock()
		return nil
	}
	h.dirty = false
	maps.DeleteFunc(h.routers, func(name string, _ map[netip.Addr]uint64) bool { return !h.used[name] })
	text, err := json.Marshal(h.routers)
	h.mu.Unlock()
	if err == nil {
		err = durable.WriteFile(h.path, text, 0o600)
	}
	if err != nil {
		h.mu.Lock()
		h.dirty = true
		h.mu.Unlock()
	}
	return err
}

// resume gives a router what it has heard in an earlier life.
func (r *Router) resume() {
	if r.edge.auth == nil || r.cfg.Heard == nil {
		return
	}
	// Another key begins anew: what was heard under the old one cannot come again.
	r.heardName = fmt.Sprintf("%s vrid %d, IPv6 %t, key %s", r.cfg.Interface, r.cfg.VRID, r.cfg.is6(), r.edge.auth.KeyName())
	r.edge.auth.Resume(r.cfg.Heard.of(r.heardName))
}

// unseal opens a packet for this virtual router. Those of others do not count: each has a counter of its own, and a socket hears them all.
func (r *Router) unseal(p vrrp.Packet) (vrrp.Packet, vrrp.Reason) {
	if len(p.Payload) > 1 && p.Payload[1] != r.vrrp.VRID {
		return vrrp.Packet{}, vrrp.OtherVRID
	}
	opened, reason := r.edge.auth.Open(p)
	if reason == vrrp.Accepted && r.cfg.Heard != nil {
		r.cfg.Heard.note(r.heardName, r.edge.auth)
	}
	return opened, reason
}
