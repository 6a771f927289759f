package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/appliance"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// inviting is an appliance that waits at the loopback address.
func inviting(t *testing.T, valid time.Duration) *Invitation {
	t.Helper()
	b, _ := given(t)
	packed, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), ConfigFile)
	if err := os.WriteFile(config, []byte("node = \"a\"\ninterface = \"eth0\"\n[peers]\naddresses = []\n[vip]\naddresses = [\"198.18.0.10/24\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := appliance.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	i := &Invitation{Expires: time.Now().Add(valid), configPath: config, config: cfg, bundle: packed, files: b.Files, settling: time.Minute, ended: make(chan outcome, 1)}
	if err := i.listen(netip.AddrPortFrom(loopback, 0), time.Now()); err != nil {
		t.Fatal(err)
	}
	return i
}

// waiting lets it wait, and returns what comes of that.
func waiting(t *testing.T, i *Invitation) <-chan error {
	ended := make(chan error, 1)
	go func() { _, err := i.Wait(t.Context()); ended <- err }()
	return ended
}

// asks is what node b at the loopback address asks with a line.
func asks(line Line) request {
	return request{Token: line.Token[:], Node: "b", Address: loopback, Nonce: []byte("0123456789abcdef")}
}

func question(t *testing.T, line Line, q request) (Bundle, error) {
	t.Helper()
	conn, err := dial(t.Context(), line)
	if err != nil {
		return Bundle{}, err
	}
	defer conn.Close()
	return ask(t.Context(), conn, line, q)
}

// joined lets node b ask and say that it is set up.
func joined(t *testing.T, line Line) {
	t.Helper()
	if _, err := question(t, line, asks(line)); err != nil {
		t.Fatal(err)
	}
	if err := tell(t.Context(), line, asks(line)); err != nil {
		t.Fatal(err)
	}
}

// TestGivenButNotSetUp: a node that got everything is no peer before it says that it is one; the operator hears what is known, and nobody else can say it.
func TestGivenButNotSetUp(t *testing.T) {
	for want, then := range map[string]func(i *Invitation, q request) error{
		"has not said that it is set up": func(i *Invitation, q request) error { return nil },
		"disk full":                      func(i *Invitation, q request) error { q.Error = "disk full"; return tell(t.Context(), i.Line, q) },
	} {
		i := inviting(t, time.Minute)
		i.settling = 500 * time.Millisecond
		ended := waiting(t, i)
		q := asks(i.Line)
		if _, err := question(t, i.Line, q); err != nil {
			t.Fatal(err)
		}
		other := q
		other.Nonce = []byte("another's nonce.")
		if err := tell(t.Context(), i.Line, other); err == nil {
			t.Error("somebody else's word was taken")
		}
		if err := then(i, q); err != nil {
			t.Error(err)
		}
		if err := <-ended; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if cfg, err := appliance.Load(i.configPath); err != nil || len(cfg.Peers.Addresses) != 0 {
			t.Errorf("peers %v, %v", cfg.Peers.Addresses, err)
		}
	}
}

// TestOneSourceKeepsNobodyOut: connections of one address beyond a few are closed at once; when one ends there is room again.
func TestOneSourceKeepsNobodyOut(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := newSources(l, 2)
	defer limited.Close()
	accepted := make(chan net.Conn, 3)
	go func() {
		for {
			c, err := limited.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	from := func(address string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		c, err := d.DialContext(t.Context(), "tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	from("127.0.0.2")
	first := <-accepted
	from("127.0.0.2")
	<-accepted
	if _, err := from("127.0.0.2").Read(make([]byte, 1)); err == nil {
		t.Error("a third connection was answered")
	}
	from("127.0.0.3")
	<-accepted
	first.Close()
	first.Close() // twice is no more room than once
	from("127.0.0.2")
	<-accepted
	if _, err := from("127.0.0.2").Read(make([]byte, 1)); err == nil {
		t.Error("a third connection was answered")
	}
}

// TestLineIsGoodOnce: the first who has it gets all, the second nothing, and the giver knows its peer.
func TestLineIsGoodOnce(t *testing.T) {
	i := inviting(t, time.Minute)
	ended := waiting(t, i)
	q := asks(i.Line)
	b, err := question(t, i.Line, q)
	if err != nil || b.Site != "berlin" || len(b.Files[peerKeyFile]) == 0 {
		t.Fatalf("%+v, %v", b, err)
	}
	if cfg, err := appliance.Load(i.configPath); err != nil || len(cfg.Peers.Addresses) != 0 {
		t.Errorf("it is a peer before it is set up: %v, %v", cfg.Peers.Addresses, err)
	}
	if err := tell(t.Context(), i.Line, q); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := question(t, i.Line, q); err == nil || !strings.Contains(err.Error(), "everboot invite") {
		t.Errorf("a second time: %v", err)
	}
	cfg, err := appliance.Load(i.configPath)
	if err != nil || len(cfg.Peers.Addresses) != 1 || cfg.Peers.Addresses[0] != loopback {
		t.Errorf("peers %v, %v", cfg.Peers.Addresses, err)
	}
}

// asked is the answer to a question without a network in between.
func asked(i *Invitation, q request) *httptest.ResponseRecorder {
	body, _ := json.Marshal(q)
	r := httptest.NewRequest(http.MethodPost, pathJoin, bytes.NewReader(body))
	r.RemoteAddr = netip.AddrPortFrom(q.Address, 1).String()
	w := httptest.NewRecorder()
	i.answer(w, r)
	return w
}

// TestSecondQuestionWhileTheFirstIsAnswered: it gets nothing, nor does one that comes when the line is too old.
func TestSecondQuestionWhileTheFirstIsAnswered(t *testing.T) {
	i := inviting(t, time.Minute)
	defer i.Close()
	q := asks(i.Line)
	if w := asked(i, q); w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	if w := asked(i, q); w.Code != http.StatusGone || strings.Contains(w.Body.String(), "files") {
		t.Error(w.Code, w.Body)
	}
	late := inviting(t, time.Millisecond)
	defer late.Close()
	time.Sleep(time.Until(late.Expires))
	if w := asked(late, asks(late.Line)); w.Code != http.StatusGone {
		t.Error(w.Code, w.Body)
	}
}

// TestHalfQuestions: those who begin to ask and do not end keep the node that joined from being written down no longer than for patience.
func TestHalfQuestions(t *testing.T) {
	i := inviting(t, time.Minute)
	i.hold = 2 * time.Second // their refusal comes when nobody waits for it any more
	ended := waiting(t, i)
	for range maxOfSource - 2 { // the node that joins asks twice, and its first connection may be closing still
		c, err := tls.Dial("tcp4", i.Line.Address.String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{", pathJoin)
	}
	joined(t, i.Line)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if cfg, err := appliance.Load(i.configPath); err != nil || len(cfg.Peers.Addresses) != 1 {
		t.Errorf("peers %v, %v", cfg.Peers.Addresses, err)
	}
}

// brokenWriter is a node that went while it was answered.
type brokenWriter struct{ *httptest.ResponseRecorder }

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestAnswerThatBreaksOff: the one who waits hears of it at once, for the line is used up.
func TestAnswerThatBreaksOff(t *testing.T) {
	i := inviting(t, time.Minute)
	ended := waiting(t, i)
	body, _ := json.Marshal(asks(i.Line))
	r := httptest.NewRequest(http.MethodPost, pathJoin, bytes.NewReader(body))
	r.RemoteAddr = netip.AddrPortFrom(loopback, 1).String()
	i.answer(brokenWriter{httptest.NewRecorder()}, r)
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Error(err)
	}
}

// TestPeerListThatChangedMeanwhile: what was added by hand while the line was good stays, and the new node is added to it.
func TestPeerListThatChangedMeanwhile(t *testing.T) {
	i := inviting(t, time.Minute)
	defer i.Close()
	text, err := os.ReadFile(i.configPath)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "[peers]\naddresses = []", "[peers]\naddresses = [\"198.18.0.4\"]", 1)
	if err := os.WriteFile(i.configPath, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := i.addPeer(netip.MustParseAddr("198.18.0.3")); err != nil {
		t.Error(err)
	}
	if cfg, err := appliance.Load(i.configPath); err != nil || len(cfg.Peers.Addresses) != 2 {
		t.Errorf("peers %v, %v", cfg.Peers.Addresses, err)
	}
}

// TestUnicastIsRefused: a new node would be deaf, and two would own the address.
func TestUnicastIsRefused(t *testing.T) {
	for _, more := range []string{"unicast = [\"198.18.0.4\"]\n", "[[vip.group]]\naddresses = [\"198.18.0.11/24\"]\nvrid = 8\ninterface = \"eth1\"\n"} {
		config := filepath.Join(t.TempDir(), ConfigFile)
		text := "node = \"a\"\ninterface = \"eth0\"\n[peers]\naddresses = [\"198.18.0.4\"]\n[vip]\naddresses = [\"198.18.0.10/24\"]\n" + more
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := appliance.Load(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := joinable(cfg); err == nil || !strings.Contains(err.Error(), "by hand") {
			t.Errorf("%s: %v", more, err)
		}
	}
}

// TestWhoIsRefused: each gets a reason and no secret, and the line stays good for the right one.
func TestWhoIsRefused(t *testing.T) {
	i := inviting(t, time.Minute)
	ended := waiting(t, i)
	token, nonce := i.Line.Token[:], asks(i.Line).Nonce
	for want, q := range map[string]request{
		"is not the one that was printed": {Token: make([]byte, 16), Node: "b", Address: loopback, Nonce: nonce},
		"printed last":                    {Node: "b", Address: loopback, Nonce: nonce},
		"is the name of this appliance":   {Token: token, Node: "a", Address: loopback, Nonce: nonce},
		"no address translation":          {Token: token, Node: "b", Address: netip.MustParseAddr("198.18.0.3"), Nonce: nonce},
		"node":                            {Token: token, Node: "b/../../x", Address: loopback, Nonce: nonce},
		"version of everboot":             {Token: token, Node: "b", Address: loopback},
		"file api.token":                  {Token: token, Node: "b", Address: loopback, Nonce: nonce, Has: map[string][]byte{tokenFile: mark(i.Line.Token, []byte("another"))}},
	} {
		b, err := question(t, i.Line, q)
		if err == nil || !strings.Contains(err.Error(), want) || len(b.Files) > 0 {
			t.Errorf("want %q: %v, %d files", want, err, len(b.Files))
		}
	}
	joined(t, i.Line)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestStrangerIsToldNothing: the token goes only to whom the line names.
func TestStrangerIsToldNothing(t *testing.T) {
	i := inviting(t, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := i.Wait(ctx); ended <- err }()
	line := i.Line
	line.Fingerprint[0]++
	if _, err := dial(t.Context(), line); err == nil || !strings.Contains(err.Error(), "was told nothing") {
		t.Errorf("%v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, ErrExpired) {
		t.Errorf("%v", err)
	}
}

// TestLineGrowsOld: nobody came, and nobody can come later.
func TestLineGrowsOld(t *testing.T) {
	i := inviting(t, 50*time.Millisecond)
	if err := <-waiting(t, i); !errors.Is(err, ErrExpired) {
		t.Errorf("%v", err)
	}
	if _, err := question(t, i.Line, asks(i.Line)); err == nil || !strings.Contains(err.Error(), "nobody waits") {
		t.Errorf("%v", err)
	}
}
