package appliance

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"sync"
	"time"

	"everboot/appliance/peers"
	"everboot/appliance/web"
	"everboot/site"
	"everboot/tftp"
)

const (
	mediaFormat = 1 // the first byte of a message; JSON follows
	// mediaEach bounds the media of one device, and maxMediaReports those of all: somebody may make devices up, or media.
	mediaEach       = 4
	maxMediaReports = 40_000
	// mediaTold is how many reports a second peers are told at most: ten thousand targets make 80.
	mediaTold = 200
)

// mediaReports is what targets said last of the boot media in them. Every target says it again every two minutes, so it is kept in memory alone, and a lost message
// to another appliance is made good by the next.
type mediaReports struct {
	tell func([]byte)
	now  func() time.Time

	mu     sync.Mutex
	last   map[site.MAC]map[string]mediaReport // by the target's name of the medium
	count  int
	second time.Time
	told   int
}

// mediaReport is a target's word.
type mediaReport struct {
	MAC     site.MAC  `json:"mac"`
	Medium  string    `json:"medium"`
	Version int       `json:"version"`
	Behind  bool      `json:"behind,omitempty"` // it was given another program
	Problem string    `json:"problem,omitempty"`
	At      time.Time `json:"at"`
}

func newMediaReports(tell func([]byte)) *mediaReports {
	return &mediaReports{tell: tell, now: time.Now, last: make(map[site.MAC]map[string]mediaReport)}
}

// Seen takes the word of a target; behind says that it was given another program.
func (m *mediaReports) Seen(s tftp.MediumState, behind bool) {
	r := mediaReport{MAC: s.MAC, Medium: s.Medium, Version: s.Made.Version, Behind: behind, Problem: s.Problem, At: m.now()}
	m.mu.Lock()
	m.put(r)
	if r.At.Sub(m.second) >= time.Second {
		m.second, m.told = r.At, 0
	}
	m.told++
	tell := m.told <= mediaTold
	m.mu.Unlock()
	text, err := json.Marshal(r)
	if err == nil && tell {
		m.tell(append([]byte{mediaFormat}, text...))
	}
}

// put keeps a report; of too many media of a device the one that was silent for longest goes.
func (m *mediaReports) put(r mediaReport) {
	all := m.last[r.MAC]
	if old, ok := all[r.Medium]; ok {
		if old.At.Before(r.At) {
			all[r.Medium] = r
		}
		return
	}
	if m.count >= maxMediaReports {
		return
	}
	if all == nil {
		all = make(map[string]mediaReport)
		m.last[r.MAC] = all
	}
	if len(all) >= mediaEach {
		oldest := r
		for _, o := range all {
			if o.At.Before(oldest.At) {
				oldest = o
			}
		}
		delete(all, oldest.Medium)
		m.count--
	}
	all[r.Medium] = r
	m.count++
}

var reportWord = regexp.MustCompile(`^[0-9a-z-]{0,32}$`)

// PeerChanged takes what a target said to another appliance.
func (m *mediaReports) PeerChanged(_ string, message []byte) {
	if len(message) < 2 || message[0] != mediaFormat {
		return
	}
	var r mediaReport
	if json.Unmarshal(message[1:], &r) != nil || r.MAC.IsZero() || r.Medium == "" || !reportWord.MatchString(r.Medium) || !reportWord.MatchString(r.Problem) {
		return
	}
	if now := m.now(); r.At.After(now) { // its clock is ahead of ours
		r.At = now
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(r)
}

// Report returns who has which medium and who shall have which, by MAC: every device that has said something, and every one that shall have a version.
func (m *mediaReports) Report(v *site.View) []web.MediumReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	for mac, all := range m.last { // devices that are no more make room
		if _, known := v.Devices[mac]; !known {
			m.count -= len(all)
			delete(m.last, mac)
		}
	}
	var list []web.MediumReport
	for mac, d := range v.Devices {
		want := site.MediumOf(v, mac).Version
		for _, r := range m.last[mac] {
			list = append(list, web.MediumReport{
				MAC: mac, Device: d.Name, Collection: d.Collection, Medium: r.Medium, Has: r.Version, Wants: want, At: r.At, State: mediumState(r, want), Problem: r.Problem,
			})
		}
		if len(m.last[mac]) == 0 && want != 0 {
			list = append(list, web.MediumReport{MAC: mac, Device: d.Name, Collection: d.Collection, Wants: want, State: web.MediumSilent})
		}
	}
	slices.SortFunc(list, func(a, b web.MediumReport) int {
		return cmp.Or(slices.Compare(a.MAC[:], b.MAC[:]), cmp.Compare(a.Medium, b.Medium))
	})
	return list
}

func mediumState(r mediaReport, want int) web.MediumState {
	switch {
	case want == 0:
		return web.MediumKept
	case r.Version == want && !r.Behind:
		return web.MediumCurrent
	case r.Problem != "":
		return web.MediumFailed
	}
	return web.MediumBehind
}

// openMedia comes before HTTP and before the peer channel.
func (w *worker) openMedia() error {
	w.media = newMediaReports(w.tell(peers.Media))
	w.shares[peers.Media] = peers.Share{Changed: w.media.PeerChanged}
	return nil
}
