package streamer

import (
	"sync"
	"time"

	"everboot/site"
)

// announceCover is how long a session may be missing in what its streamer announces: it announces every second, and a registry may
// pass that on a little later.
const announceCover = 3 * time.Second

// pool chooses streamers, and counts what was given to each since its last announcement. A login holds its lock for the few
// microseconds of the choice, so that many logins at once spread evenly; bytes never do.
type pool struct {
	mu    sync.Mutex
	loads map[string]*load
}

type load struct {
	live      int // sessions that go through this director now
	recent    int // picks since since
	since     time.Time
	announced int
	failed    time.Time // when it last could not be reached
	failing   bool      // since then no login succeeded
	failures  uint64
}

func (p *pool) load(name string) *load {
	if p.loads == nil {
		p.loads = make(map[string]*load)
	}
	if p.loads[name] == nil {
		p.loads[name] = new(load)
	}
	return p.loads[name]
}

// pick is site.Pick with what is known here and not yet announced. A picked streamer must be given back with leave or failed.
func (p *pool) pick(now time.Time, v *site.View, l site.Login) (site.Streamer, site.Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.Extra = make(map[string]int, len(v.Streamers))
	for name, s := range v.Streamers {
		x := p.load(name)
		if x.announced != s.Sessions || now.Sub(x.since) > announceCover {
			x.announced, x.recent, x.since = s.Sessions, 0, now
		}
		l.Extra[name] = max(x.recent, x.live-s.Sessions)
		if !x.failed.IsZero() && now.Sub(x.failed) < failedPause {
			l.Tried = append(l.Tried[:len(l.Tried):len(l.Tried)], name)
		}
	}
	s, reason := site.Pick(v, l)
	if reason == site.Picked {
		x := p.load(s.Name)
		x.recent++
		x.live++
	}
	return s, reason
}

// leave ends what pick began.
func (p *pool) leave(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.load(name).live--
}

// failed ends what pick began because the streamer did not take the login. It reports whether that is news.
func (p *pool) failed(name string, now time.Time) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.load(name)
	news = !x.failing
	x.live--
	x.failures++
	x.recent = max(0, x.recent-1)
	x.failed, x.failing = now, true
	return news
}

// succeeded notes that the streamer took a login. It reports whether that is news.
func (p *pool) succeeded(name string) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.load(name)
	news, x.failing = x.failing, false
	return news
}

// forget drops streamers that are gone from the view and have no sessions.
func (p *pool) forget(v *site.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, x := range p.loads {
		if _, ok := v.Streamers[name]; !ok && x.live == 0 {
			delete(p.loads, name)
		}
	}
}

func (p *pool) failures() map[string]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := make(map[string]uint64, len(p.loads))
	for name, x := range p.loads {
		m[name] = x.failures
	}
	return m
}

// Strands returns the replicas of a streamer that no other streamer could take over now: what targets lose when it stops.
func Strands(v *site.View, name string) []site.Replica {
	var stranded []site.Replica
	for _, r := range v.Streamers[name].Replicas {
		l := site.Login{VDisk: r.VDisk, Version: r.Version, Digest: r.Digest, Tried: []string{name}}
		if _, reason := site.Pick(v, l); reason != site.Picked {
			stranded = append(stranded, r)
		}
	}
	return stranded
}
