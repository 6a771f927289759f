package v6

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"everboot/dhcp"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// mute is a conn that answers go into.
type mute struct{ sent int }

func (m *mute) Read([]byte) (int, netip.AddrPort, bool, error) { select {} }
func (m *mute) Write([]byte, netip.AddrPort) error             { m.sent++; return nil }
func (m *mute) Gone() bool                                     { return false }
func (m *mute) Close() error                                   { return nil }

// TestWhatWasHeardIsShown: who uses what, until it ends; and the last word with each machine, also of one that another node answers.
func TestWhatWasHeardIsShown(t *testing.T) {
	first := true
	s, err := New(testConfig(), testView, func(string) bool { return first }, func(dhcp.Decision) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := &mute{}
	hear := func(m Message) { s.answer(time.Now(), c, m.Bytes, netip.AddrPortFrom(m.From, 546), false) }
	hear(message(pooled1, dhcpv6.MessageTypeRequest, toServer, iaOf(its(pooled1, 0))))
	hear(message(known1, dhcpv6.MessageTypeRequest, toServer, iaOf()))
	first = false
	hear(message(stranger, dhcpv6.MessageTypeRequest, toServer, iaOf(its(stranger, 0))))
	uses := s.Uses()
	got := make(map[site.MAC]string)
	for i, u := range uses {
		got[u.MAC] = u.Address.String()
		if i > 0 && !uses[i-1].Address.Less(u.Address) || u.Declined || time.Until(u.Until) < 50*time.Minute {
			t.Errorf("%+v", u)
		}
	}
	if len(uses) != 3 || got[pooled1] != its(pooled1, 0) || got[known1] != "2001:db8::51" || got[stranger] != its(stranger, 0) {
		t.Errorf("heard %v", uses)
	}
	if d, ok := s.Last(known1); !ok || d.Reason != dhcp.Reserved || d.Message != "v6-request" || d.Address != ip("2001:db8::51") {
		t.Errorf("the last of a device: %+v, %v", d, ok)
	}
	if d, ok := s.Last(stranger); ok {
		t.Errorf("another node's client: %+v", d)
	}
	first = true
	hear(message(pooled1, dhcpv6.MessageTypeRelease, toServer, iaOf(its(pooled1, 0))))
	hear(message(stranger, dhcpv6.MessageTypeDecline, toServer, iaOf(its(stranger, 0))))
	if uses := s.Uses(); len(uses) != 2 || !uses[0].Declined && !uses[1].Declined {
		t.Errorf("after a release and a decline: %v", uses)
	}
	if c.sent != 4 {
		t.Errorf("%d answers", c.sent)
	}
}

// TestWhatIsRememberedIsBounded: whoever makes up MACs makes us forget others.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	s, err := New(testConfig(), testView, nil, func(dhcp.Decision) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxKnown {
		s.remember(dhcp.Decision{MAC: site.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}, Reason: dhcp.Pooled})
	}
	s.remember(dhcp.Decision{})
	if n := len(s.last) + len(s.before); n > 2*maxKnown {
		t.Errorf("%d are remembered", n)
	}
	if _, ok := s.Last(site.MAC{}); ok {
		t.Error("a message of nobody is remembered")
	}
}
