package dhcp

import (
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"
)

// TestAMessageIsAnsweredWhereItArrives: an offer has left when receive returns. In a flood the queue takes over, and what finds no room there is
// counted.
func TestAMessageIsAnsweredWhereItArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := alone()
		cfg.QueueLength = 8
		s, w, _, _ := simulated(t, cfg)
		hear(s, message(site.MAC{2, 0, 0, 0, 0, 1}, discover)) // nobody answers yet: it waits
		if n := len(w.answers()); n != 0 {
			t.Fatalf("%d answers before the service runs", n)
		}
		defer run(t, s)()
		synctest.Wait()
		if n := len(w.answers()); n != 1 {
			t.Fatalf("%d answers to what waited", n)
		}
		hear(s, message(site.MAC{2, 0, 0, 0, 0, 2}, discover))
		if n := len(w.answers()); n != 2 {
			t.Fatalf("%d answers when receive has returned, want 2", n)
		}
		time.Sleep(atOnceFor)
		for i := range 3 * atOnce {
			hear(s, message(site.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}, discover, ciaddr("0.0.0.0")))
		}
		synctest.Wait()
		st := s.Stats()
		if st.Reasons[Overloaded] == 0 || st.Messages["discover"]+st.Reasons[Overloaded] != 2+3*atOnce {
			t.Errorf("%d looked at, %d dropped of %d", st.Messages["discover"], st.Reasons[Overloaded], 2+3*atOnce)
		}
	})
}

// TestThePaceOfWrites: half a millisecond from one write to the next, and four milliseconds where the processor has much to do; what nobody waits for does not count.
func TestThePaceOfWrites(t *testing.T) {
	answer, word := outgoing{payload: []byte{1}}, outgoing{}
	for name, c := range map[string]struct {
		every time.Duration // a write
		batch []outgoing
		want  time.Duration
	}{
		"1,000 a second":                      {time.Millisecond, []outgoing{answer}, 0},
		"1,000 a second and what peers told":  {time.Millisecond, []outgoing{answer, word, word, word}, 0},
		"2,000 a second":                      {time.Millisecond, []outgoing{answer, answer}, busyPace},
		"2,000 a second, at the pace of many": {busyPace, []outgoing{answer, answer, answer, answer, answer, answer, answer, answer}, busyPace},
		"a single one, long after":            {time.Hour, []outgoing{answer}, 0},
	} {
		var p pace
		now := time.Unix(1e9, 0)
		var got time.Duration
		for range 1000 {
			now = now.Add(c.every)
			got = p.of(now, c.batch)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
