package streamer

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"everboot/site"
)

// announceCover is how long a session may be missing in what its streamer announces: it announces every second, and a registry may
// pass that on a little later.
const announceCover = 3 * time.Second

// staleTime is how long a streamer that fell silent may count sessions that ended meanwhile: its host was only cut off, and the FINs come when the
// kernel sends them again, ever more rarely. Until then only those count that go through here.
const staleTime = time.Minute

// pool chooses streamers, and counts what was given to each since its last announcement. A login holds its lock for the few
// microseconds of the choice, so that many logins at once spread evenly; bytes never do.
type pool struct {
	mu     sync.Mutex
	loads  map[string]*load
	nics   map[string]int       // sessions that go through this director, by portal
	hushed map[string]time.Time // portals that fell silent, and until when they get no login
}

type load struct {
	live      int // sessions that go through this director now
	recent    int // picks since since
	since     time.Time
	announced int
	failed    time.Time // when it last could not be reached
	failing   bool      // since then no login succeeded
	failures  uint64
	hung      time.Time // until when it is the last choice
	stale     time.Time // until when it may announce sessions that are gone
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

// pick is site.Pick with what is known here and not yet announced. A picked streamer must be given back with leave, spared or failed.
func (p *pool) pick(now time.Time, v *site.View, l site.Login) (site.Streamer, site.Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.Extra = make(map[string]int, len(v.Streamers))
	l.Tried = slices.Clip(l.Tried)
	var hung []string
	for name, s := range v.Streamers {
		x := p.load(name)
		if x.announced != s.Sessions || now.Sub(x.since) > announceCover {
			x.announced, x.recent, x.since = s.Sessions, 0, now
		}
		l.Extra[name] = max(x.recent, x.live-s.Sessions)
		if now.Before(x.stale) {
			l.Extra[name] = x.live - s.Sessions
		}
		switch {
		case !x.failed.IsZero() && now.Sub(x.failed) < failedPause, p.isSilent(now, s):
			l.Tried = append(l.Tried, name)
		case now.Before(x.hung):
			hung = append(hung, name)
		}
	}
	last := l
	l.Tried = append(l.Tried, hung...)
	s, reason := site.Pick(v, l)
	if reason != site.Picked && len(hung) > 0 {
		s, reason = site.Pick(v, last)
	}
	if reason == site.Picked {
		x := p.load(s.Name)
		x.recent++
		x.live++
	}
	return s, reason
}

// isSilent reports whether all portals of a streamer have fallen silent.
func (p *pool) isSilent(now time.Time, s site.Streamer) bool {
	if len(p.hushed) == 0 {
		return false
	}
	return !slices.ContainsFunc(s.Addresses, func(a netip.AddrPort) bool { return !now.Before(p.hushed[a.String()]) })
}

// silent returns the streamers whose portals have all fallen silent.
func (p *pool) silent(now time.Time, v *site.View) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.hushed) == 0 {
		return nil
	}
	var names []string
	for name, s := range v.Streamers {
		if p.isSilent(now, s) {
			names = append(names, name)
		}
	}
	return names
}

// hush gives a portal of a streamer no login until then.
func (p *pool) hush(portal, streamer string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.load(streamer).stale = until.Add(staleTime)
	if p.hushed == nil {
		p.hushed = make(map[string]time.Time)
	}
	p.hushed[portal] = until
}

// hang makes a streamer the last choice until then. It reports whether that is news.
func (p *pool) hang(name string, until time.Time) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.load(name)
	news = time.Now().After(x.hung)
	x.hung = until
	return news
}

// portals returns the addresses of a streamer in the order to try them: those in the target's subnet before, or without, the others if its
// vDisk says so, and of these the one with the fewest sessions first. Ties go by rendezvous hash: redirected sessions are counted nowhere.
func (p *pool) portals(v *site.View, s site.Streamer, l site.Login) []netip.AddrPort {
	near, far := []netip.AddrPort(nil), s.Addresses
	affinity := v.VDisks[l.VDisk].Affinity
	if affinity != site.NoAffinity {
		near, far = s.Portals(l.From)
	}
	if affinity == site.FixedAffinity && len(near) > 0 {
		far = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	order := func(list []netip.AddrPort) []netip.AddrPort {
		list = slices.DeleteFunc(slices.Clone(list), func(a netip.AddrPort) bool { return now.Before(p.hushed[a.String()]) })
		slices.SortStableFunc(list, func(a, b netip.AddrPort) int {
			x, y := a.String(), b.String()
			return cmp.Or(cmp.Compare(p.nics[x], p.nics[y]), cmp.Compare(site.Rendezvous(l.MAC[:], []byte(y)), site.Rendezvous(l.MAC[:], []byte(x))))
		})
		return list
	}
	return append(order(near), order(far)...)
}

// use counts a session that comes to a portal (1), or leaves it (-1).
func (p *pool) use(portal string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nics == nil {
		p.nics = make(map[string]int)
	}
	if p.nics[portal] += n; p.nics[portal] <= 0 {
		delete(p.nics, portal)
	}
}

// leave ends what pick began.
func (p *pool) leave(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.load(name).live--
}

// spared ends what pick began because of a login that the streamer need not have taken: it may still take others.
func (p *pool) spared(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.load(name)
	x.live--
	x.recent = max(0, x.recent-1)
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
	now := time.Now()
	maps.DeleteFunc(p.hushed, func(_ string, until time.Time) bool { return now.After(until) })
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
