package keep

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"everboot/site"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// attach makes a guard's and a worker's side.
func attach(t *testing.T, h *Holder) *Keeper {
	t.Helper()
	f, err := h.Attach()
	if err != nil {
		t.Fatal(err)
	}
	k, err := Inherited(f)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// connected returns both ends of a TCP connection.
func connected(t *testing.T) (server, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func tuple(c *net.TCPConn) site.Connection {
	return site.Connection{Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
}

// TestAKeptConnectionOutlivesItsWorker: the worker's end closes nothing; only Release does, and the next worker learns of it.
func TestAKeptConnectionOutlivesItsWorker(t *testing.T) {
	h := NewHolder(slog.New(slog.DiscardHandler))
	k := attach(t, h)
	server, client := connected(t)
	k.Keep(server, tuple(server))
	lost := tuple(server)
	server.Close()
	k.Close() // the worker has died
	<-h.serve.done

	if err := client.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the client learned of the worker's death: %v", err)
	}
	h.Release()
	if err := client.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after Release the client read %v, want a reset", err)
	}

	next := attach(t, h)
	if got := next.Former(); !slices.Equal(got, []site.Connection{lost}) {
		t.Errorf("the next worker learned of %v, want %v", got, lost)
	}
	next.Close() // it dies at once: nobody has been told yet
	h.Release()
	after := attach(t, h)
	if got := after.Former(); !slices.Equal(got, []site.Connection{lost}) {
		t.Errorf("and the one after it of %v, want %v", got, lost)
	}
	h.serve.began = h.serve.began.Add(-formerTime) // this one has lived long
	after.Close()
	h.Release()
	last := attach(t, h)
	if got := last.Former(); len(got) > 0 {
		t.Errorf("and the last of %v", got)
	}
	last.Close()
	h.Release()
}

// TestAWorkerThatClosesIsNotHeldUp: what the worker closes the client sees closed, whichever of close and drop comes first.
func TestAWorkerThatClosesIsNotHeldUp(t *testing.T) {
	h := NewHolder(slog.New(slog.DiscardHandler))
	k := attach(t, h)
	for _, closeFirst := range []bool{true, false} {
		server, client := connected(t)
		drop := k.Keep(server, tuple(server))
		if closeFirst {
			server.Close()
			drop()
		} else {
			drop()
			server.Close()
		}
		drop() // twice does no harm
		if err := client.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("closed first %t: the client read %v, want the end", closeFirst, err)
		}
	}
	k.Close()
	<-h.serve.done
	if ids := h.serve.ids(); len(ids) > 0 {
		t.Errorf("still held: %v", ids)
	}
	h.Release()
}

// TestAKeptSocketAnswersNoError: datagrams to a dead worker's UDP socket meet no "port unreachable".
func TestAKeptSocketAnswersNoError(t *testing.T) {
	h := NewHolder(slog.New(slog.DiscardHandler))
	k := attach(t, h)
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	k.Keep(server, site.Connection{})
	client, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server.Close()
	k.Close()
	<-h.serve.done
	ask := func() error {
		if _, err := client.Write([]byte("x")); err != nil {
			return err
		}
		if err := client.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		_, err := client.Read(make([]byte, 1))
		return err
	}
	if err := ask(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("held: %v, want silence", err)
	}
	h.Release()
	if err := ask(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("released: %v, want a refusal: else this test proves nothing", err)
	}
	next := attach(t, h)
	if got := next.Former(); len(got) > 0 {
		t.Errorf("a socket without a peer is no connection: %v", got)
	}
	next.Close()
	h.Release()
}

// TestManyConnectionsOfADeadWorker: more than the socket's buffer holds.
func TestManyConnectionsOfADeadWorker(t *testing.T) {
	h := NewHolder(slog.New(slog.DiscardHandler))
	for i := range 20000 {
		addr := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		h.former = append(h.former, site.Connection{Local: netip.MustParseAddrPort("198.18.0.10:3260"), Remote: netip.AddrPortFrom(addr, 1024)})
	}
	want := slices.Clone(h.former)
	k := attach(t, h)
	if got := k.Former(); !slices.Equal(got, want) {
		t.Errorf("learned of %d connections, want %d", len(got), len(want))
	}
	k.Close()
	h.Release()
}

func TestNilKeeperKeepsNothing(t *testing.T) {
	var k *Keeper
	server, _ := connected(t)
	k.Keep(server, tuple(server))()
	if k.Former() != nil || k.Close() != nil {
		t.Error("a nil Keeper has something")
	}
}

func TestMalformedMessagesLeaveNothingBehind(t *testing.T) {
	s := &serving{held: make(map[uint64]held)}
	for _, b := range [][]byte{nil, {opTake}, {opDrop}, message(opTake, 1), message('?', 1), append(message(opDrop, 1), 0)} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := syscall.Dup(int(r.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		s.told(b, []int{fd})
		if err := syscall.Close(fd); !errors.Is(err, syscall.EBADF) {
			t.Errorf("%q: its descriptor is still open", b)
		}
		r.Close()
		w.Close()
	}
	if len(s.held) > 0 {
		t.Errorf("held: %v", s.held)
	}
}
