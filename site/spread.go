package site

import (
	"cmp"
	"slices"
)

// Placed is a session where it is.
type Placed struct {
	Login    Login
	Streamer string
}

// Spread returns the indices of the sessions that must log in anew so that the sessions per power of their streamers are as even as
// they can be. They are as few as possible: one moves only if the streamer that it would find has less to do with it than its own has now.
func Spread(v *View, sessions []Placed) []int {
	p := plan{view: v, count: make(map[string]int), stay: make(map[string][]int)}
	for i, s := range sessions {
		p.count[s.Streamer]++
		p.stay[s.Streamer] = append(p.stay[s.Streamer], i)
	}
	for name, s := range v.Streamers { // sessions of other appliances stay where they are, but they are load
		p.count[name] = max(p.count[name], s.Sessions)
	}
	var moves []int
	for len(p.stay) > 0 {
		from := p.busiest()
		list := p.stay[from]
		to := ""
		i := slices.IndexFunc(list, func(i int) bool {
			to = p.better(sessions[i])
			return to != ""
		})
		if i < 0 {
			delete(p.stay, from) // nobody there can go to one that has less to do
			continue
		}
		p.count[from]--
		p.count[to]++
		moves = append(moves, list[i])
		// Those before it never can: the highest load only falls, so whoever they could go to never has less to do than now.
		if p.stay[from] = list[i+1:]; len(p.stay[from]) == 0 {
			delete(p.stay, from)
		}
	}
	return moves
}

// plan is a spread in the making.
type plan struct {
	view  *View
	count map[string]int   // sessions, by streamer
	stay  map[string][]int // the sessions that have not been moved, by streamer
}

func (p *plan) load(name string) float64 {
	return float64(p.count[name]) / p.view.Streamers[name].weight()
}

func (p *plan) busiest() string {
	best := ""
	for name := range p.stay {
		if best == "" || cmp.Or(-cmp.Compare(p.load(name), p.load(best)), cmp.Compare(name, best)) < 0 {
			best = name
		}
	}
	return best
}

// better returns the streamer that a session would find if it logged in anew, or "" if that has no less to do.
func (p *plan) better(s Placed) string {
	l := s.Login
	l.Tried = []string{s.Streamer}
	l.Extra = make(map[string]int, len(p.view.Streamers))
	for name, st := range p.view.Streamers {
		l.Extra[name] = p.count[name] - st.Sessions
	}
	to, reason := Pick(p.view, l)
	if reason != Picked || float64(p.count[to.Name]+1)/to.weight() >= p.load(s.Streamer) {
		return ""
	}
	return to.Name
}

// Imbalance returns by how much the busiest streamer's sessions per power are above the mean, as a fraction: 0.5 is half as much again.
func Imbalance(v *View, sessions []Placed) float64 {
	count, power := make(map[string]int), 0.0
	for _, s := range sessions {
		count[s.Streamer]++
	}
	highest := 0.0
	for name, s := range v.Streamers {
		if s.Check.Health == Up && s.State != Draining {
			power += s.weight()
			highest = max(highest, float64(count[name])/s.weight())
		}
	}
	if power == 0 || len(sessions) == 0 {
		return 0
	}
	return highest/(float64(len(sessions))/power) - 1
}
