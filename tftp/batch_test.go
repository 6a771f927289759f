package tftp

import (
	"net"
	"testing"
	"time"
)

// TestUncut: the kernel refuses to cut a send for one client, such as into datagrams that are longer than its path's MTU; the blocks then go
// one by one. The loopback has an MTU above all datagrams, so here it is asked for too many.
func TestUncut(t *testing.T) {
	s, err := openSocket(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := peer.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	to := peer.LocalAddr().(*net.UDPAddr)
	tr := &transfer{route: newRoute(&endpoints{remote: mapped([4]byte{127, 0, 0, 1}), local: mapped([4]byte{127, 0, 0, 1}), port: uint16(to.Port)}, false)}
	tr.route.segment(1)
	out, content := new(sender), make([]byte, 3000)
	for range 2 { // the first is lost
		out.data(s, &tr.route, content, 1000, 1, 3)
		out.flush()
	}
	for block := byte(1); block <= 3; block++ {
		p := make([]byte, 2000)
		if n, err := peer.Read(p); err != nil || n != 1004 || p[3] != block {
			t.Fatalf("block %d: %d bytes, number %d, %v", block, n, p[3], err)
		}
	}
	if out.failed != 1 || out.noGSO {
		t.Errorf("%d sends failed, without UDP_SEGMENT for all: %v", out.failed, out.noGSO)
	}
}
