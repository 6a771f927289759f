package streamer

import (
	"context"
	"testing"
	"time"
)

// TestASilenceIsNoHang: the read of a portal that was cut off ends with the silence; one that begins later and is not answered hangs.
func TestASilenceIsNoHang(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	p := &pulse{}
	cuts := 0
	cut := context.CancelFunc(func() { cuts++; p.reading.Store(0) })
	p.cut.Store(&cut)
	p.reading.Store(now.UnixNano())
	for _, x := range []struct {
		after, answered time.Duration
		silent, hangs   bool
	}{
		{100 * time.Millisecond, 0, false, false},
		{400 * time.Millisecond, 0, true, false},
		{5 * time.Second, 0, true, false},
		{5*time.Second + 100*time.Millisecond, 5 * time.Second, false, false},
		{7 * time.Second, 7*time.Second - lookPace, false, false},
		{7*time.Second + 100*time.Millisecond, 7 * time.Second, false, true},
	} {
		p.answered.Store(at(x.answered).UnixNano())
		if x.answered > 0 && p.reading.Load() == 0 {
			p.reading.Store(at(x.answered).UnixNano()) // a new session
		}
		if silent, hangs := p.judge(at(x.after)); silent != x.silent || hangs != x.hangs {
			t.Errorf("after %v: silent %t, hangs %t; want %t, %t", x.after, silent, hangs, x.silent, x.hangs)
		}
	}
	if cuts == 0 {
		t.Error("the read of a silent portal goes on")
	}
}
