package site

import (
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	power := func(n float64) func(*Streamer) { return func(s *Streamer) { s.Power = n } }
	draining := func(s *Streamer) { s.State = Draining }
	for _, tt := range []struct {
		name      string
		streamers []Streamer
		at        map[string]int // sessions
		moves     int
		want      map[string]int // how many stay
	}{
		{"even", []Streamer{streamer("s1"), streamer("s2")}, map[string]int{"s1": 5, "s2": 5}, 0, nil},
		{"one apart is even", []Streamer{streamer("s1"), streamer("s2")}, map[string]int{"s1": 5, "s2": 4}, 0, nil},
		{"a third came back", []Streamer{streamer("s1"), streamer("s2"), streamer("s3")}, map[string]int{"s1": 100, "s2": 100}, 66, map[string]int{"s1": 67, "s2": 67}},
		{"by power", []Streamer{streamer("s1"), streamer("s2", power(3))}, map[string]int{"s1": 8}, 6, map[string]int{"s1": 2}},
		{"never to one that drains", []Streamer{streamer("s1"), streamer("s2", draining)}, map[string]int{"s1": 8}, 0, nil},
		{"nobody else", []Streamer{streamer("s1")}, map[string]int{"s1": 8}, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := berlin(tt.streamers...)
			var sessions []Placed
			for name, n := range tt.at {
				for i := range n {
					sessions = append(sessions, Placed{Login{MAC: MAC{2, 0, 0, 0, 0, byte(i)}, VDisk: "debian", Version: 1, Digest: good}, name})
				}
			}
			moves := Spread(v, sessions)
			if len(moves) != tt.moves {
				t.Errorf("%d moves, want %d", len(moves), tt.moves)
			}
			stay := tt.at
			for _, i := range moves {
				stay[sessions[i].Streamer]--
			}
			for name, n := range tt.want {
				if stay[name] != n {
					t.Errorf("%d stay with %s, want %d", stay[name], name, n)
				}
			}
		})
	}
}

func TestImbalance(t *testing.T) {
	v := berlin(streamer("s1"), streamer("s2"))
	var sessions []Placed
	if got := Imbalance(v, sessions); got != 0 {
		t.Errorf("nobody: %v", got)
	}
	for range 4 {
		sessions = append(sessions, Placed{Login{}, "s1"})
	}
	if got := Imbalance(v, sessions); got != 1 {
		t.Errorf("all on one of two: %v, want 1", got)
	}
}

// TestSpreadAsksOnceForEach: sessions that cannot move are not asked again for each one that can, which took half a minute here.
func TestSpreadAsksOnceForEach(t *testing.T) {
	const n = 10000
	var sessions []Placed
	for i := range 2 * n {
		l := Login{MAC: MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, VDisk: "debian", Version: 1, Digest: good}
		if i < n {
			l.Digest = bad // nobody else has it
		}
		sessions = append(sessions, Placed{l, "s1"})
	}
	start := time.Now()
	if moves := Spread(berlin(streamer("s1"), streamer("s2")), sessions); len(moves) != n {
		t.Errorf("%d moves, want %d", len(moves), n)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}
