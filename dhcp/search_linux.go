package dhcp

import (
	"fmt"
	"net"
	"net/netip"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// packetEar is a packet socket that lets in what comes to UDP port 68: all of an appliance's traffic passes by it.
type packetEar struct {
	conn *packet.Conn
	own  site.MAC
	done chan struct{}
}

// toClients lets in unfragmented UDP to port 68 (offsets of an Ethernet frame).
var toClients = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 8},
	bpf.LoadAbsolute{Off: 14 + 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoUDP, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 14 + 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 4},
	bpf.LoadMemShift{Off: 14},
	bpf.LoadIndirect{Off: 14 + 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: dhcpv4.ClientPort, SkipTrue: 1},
	bpf.RetConstant{Val: maxDatagram},
	bpf.RetConstant{Val: 0},
}

// openEar opens it in the network namespace of the calling thread, and calls heard with each frame until it is closed.
func openEar(link string, heard func([]byte)) (ear, error) {
	iface, err := net.InterfaceByName(link)
	if err != nil {
		return nil, noInterface(link)
	}
	if len(iface.HardwareAddr) != 6 {
		return nil, fmt.Errorf("dhcp: interface %s is not an Ethernet one", link)
	}
	filter, err := bpf.Assemble(toClients)
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(iface, packet.Raw, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket on %s: %w", link, err)
	}
	e := &packetEar{conn, site.MAC(iface.HardwareAddr), make(chan struct{})}
	go func() {
		defer close(e.done)
		b := make([]byte, maxDatagram)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			heard(b[:n])
		}
	}()
	return e, nil
}

// Own implements ear.
func (e *packetEar) Own() site.MAC { return e.own }

// Ask implements ear.
func (e *packetEar) Ask(q *dhcpv4.DHCPv4) error {
	ip := packetFrom(netip.AddrPortFrom(netip.IPv4Unspecified(), dhcpv4.ClientPort), netip.AddrPortFrom(limitedBroadcast, dhcpv4.ServerPort), q.ToBytes())
	_, err := e.conn.WriteTo(ethernet(e.own, broadcastMAC, ip), &packet.Addr{HardwareAddr: broadcastMAC[:]})
	return err
}

// Close implements ear.
func (e *packetEar) Close() {
	e.conn.Close()
	<-e.done
}
