package streamer

import (
	"testing"
	"time"
)

// TestASilenceIsNoHang: the read of a portal that was cut off waits for the network, and may take its time when that is back; one that is then not answered hangs.
func TestASilenceIsNoHang(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	p := &pulse{}
	p.reading.Store(now.UnixNano())
	for _, x := range []struct {
		after, answered time.Duration
		silent, hangs   bool
	}{
		{100 * time.Millisecond, 0, false, false},
		{400 * time.Millisecond, 0, true, false},
		{5 * time.Second, 0, true, false},
		{5*time.Second + 100*time.Millisecond, 5*time.Second + 50*time.Millisecond, false, false},
		{7 * time.Second, 7*time.Second - lookPace, false, false},
		{7*time.Second + 100*time.Millisecond, 7 * time.Second, false, true},
	} {
		p.answered.Store(at(x.answered).UnixNano())
		if silent, hangs := p.judge(at(x.after)); silent != x.silent || hangs != x.hangs {
			t.Errorf("after %v: silent %t, hangs %t; want %t, %t", x.after, silent, hangs, x.silent, x.hangs)
		}
	}
	p.reading.Store(0)
	p.answered.Store(at(0).UnixNano())
	if silent, _ := p.judge(at(time.Minute)); !silent || p.reading.Load() != 0 {
		t.Error("a portal that nothing is read from has a read now")
	}
}
