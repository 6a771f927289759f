package dhcp

import (
	"testing"
	"time"

	"everboot/site"
)

func TestLimiter(t *testing.T) {
	var l limiter
	for i := range perSecond {
		if !l.allows(epoch, stranger) {
			t.Fatalf("message %d", i)
		}
	}
	if l.allows(epoch, stranger) || !l.allows(epoch, known) || !l.allows(epoch.Add(time.Second), stranger) {
		t.Error("one machine's flood is not held back, or others' messages are")
	}
	for i := range 3 * maxRecent {
		l.allows(epoch, site.MAC{2, 0, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	if len(l.count) > maxRecent {
		t.Errorf("%d machines counted", len(l.count))
	}
}

func TestAnotherServerIsNamed(t *testing.T) {
	s := NewState(testConfig())
	for i := range 40 {
		Handle(epoch, testView(), message(stranger, ask, serverID(ip("203.0.113.1").String()), requested("198.18.0.120")), s)
		Handle(epoch, testView(), message(stranger, ask, serverID("198.18.0.3"), requested("198.18.0.120")), s) // a peer
		if i > 0 {
			a := ip("198.18.9.1").As4()
			a[3] = byte(i)
			Handle(epoch, testView(), message(stranger, ask, option(54, string(a[:])), requested("198.18.0.120")), s)
		}
	}
	if len(s.foreign) != maxForeign || s.foreign[0] != (Foreign{ip("203.0.113.1"), epoch, epoch, stranger}) {
		t.Errorf("%v", s.foreign)
	}
}
