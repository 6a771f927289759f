package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// Crowd is many DHCP clients behind one relay agent: the host's own address is giaddr, and answers come to it.
type Crowd struct {
	Host  *Host
	Relay netip.Addr // the host's address
	Rate  int        // clients that start in a second
	Count int        // clients in all, each with a MAC of its own
	First int        // number of the first client
}

// crowdRetries is when a client that hears nothing sends its message again, after the first time.
var crowdRetries = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}

// CrowdMAC is the hardware address of a client of a Crowd.
func CrowdMAC(n int) net.HardwareAddr {
	return binary.BigEndian.AppendUint32([]byte{0x02, 0x0c}, uint32(n))
}

type crowdClient struct {
	message *dhcpv4.DHCPv4 // what it waits for an answer to
	tries   int
	next    time.Time
}

type crowdRun struct {
	Crowd
	conn *net.UDPConn

	mu      sync.Mutex
	clients map[int]*crowdClient // those that have no address yet
	done    int
}

// Run lets the clients get their addresses and returns how many did. It ends when all have, or ctx does.
func (c Crowd) Run(ctx context.Context) (int, error) {
	conn, err := c.open()
	if err != nil {
		return 0, err
	}
	r := &crowdRun{Crowd: c, conn: conn, clients: make(map[int]*crowdClient)}
	var all sync.WaitGroup
	all.Go(r.receive)
	defer all.Wait()
	defer conn.Close()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	began, started := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return r.answered(), nil
		case now := <-tick.C:
			for ; started < c.Count && started < int(now.Sub(began).Seconds()*float64(c.Rate)); started++ {
				if err := r.start(c.First+started, now); err != nil {
					return r.answered(), err
				}
			}
			r.repeat(now)
			if r.answered() == c.Count {
				return c.Count, nil
			}
		}
	}
}

func (c Crowd) open() (conn *net.UDPConn, err error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		set := func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err == nil {
				err = unix.BindToDevice(int(fd), "eth0")
			}
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) // less will do, too
		}
		if ctl := raw.Control(set); ctl != nil {
			return ctl
		}
		return err
	}}
	err = c.Host.space.do(func() error {
		p, err := lc.ListenPacket(context.Background(), "udp4", ":67")
		if err == nil {
			conn = p.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening the crowd's socket: %w", err)
	}
	return conn, nil
}

func (r *crowdRun) answered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

func (r *crowdRun) start(n int, now time.Time) error {
	q, err := dhcpv4.NewDiscovery(CrowdMAC(n), dhcpv4.WithGatewayIP(r.Relay.AsSlice()))
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &crowdClient{}
	r.clients[n] = c
	r.say(c, q, now)
	return nil
}

// say sends a new message of a client.
func (r *crowdRun) say(c *crowdClient, q *dhcpv4.DHCPv4, now time.Time) {
	c.message, c.tries, c.next = q, 0, now.Add(crowdRetries[0])
	r.send(q)
}

func (r *crowdRun) send(q *dhcpv4.DHCPv4) {
	// What is lost is sent again.
	_, _ = r.conn.WriteToUDP(q.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
}

func (r *crowdRun) repeat(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.clients {
		if now.Before(c.next) {
			continue
		}
		c.tries = min(c.tries+1, len(crowdRetries)-1)
		c.next = now.Add(crowdRetries[c.tries])
		r.send(c.message)
	}
}

func (r *crowdRun) receive() {
	b := make([]byte, 2048)
	for {
		n, _, err := r.conn.ReadFromUDP(b)
		if err != nil {
			return
		}
		if a, err := dhcpv4.FromBytes(b[:n]); err == nil && a.OpCode == dhcpv4.OpcodeBootReply && len(a.ClientHWAddr) == 6 {
			r.take(a, time.Now())
		}
	}
}

// take is what a client does with an answer.
func (r *crowdRun) take(a *dhcpv4.DHCPv4, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := int(binary.BigEndian.Uint32(a.ClientHWAddr[2:]))
	c, ok := r.clients[n]
	if !ok || a.TransactionID != c.message.TransactionID {
		return
	}
	asked := c.message.MessageType()
	switch kind := a.MessageType(); {
	case kind == dhcpv4.MessageTypeOffer && asked == dhcpv4.MessageTypeDiscover:
		q, err := dhcpv4.NewRequestFromOffer(a, dhcpv4.WithGatewayIP(r.Relay.AsSlice()))
		if err == nil {
			r.say(c, q, now)
		}
	case kind == dhcpv4.MessageTypeAck && asked == dhcpv4.MessageTypeRequest:
		delete(r.clients, n)
		r.done++
	case kind == dhcpv4.MessageTypeNak && asked == dhcpv4.MessageTypeRequest:
		if q, err := dhcpv4.NewDiscovery(CrowdMAC(n), dhcpv4.WithGatewayIP(r.Relay.AsSlice())); err == nil {
			r.say(c, q, now)
		}
	}
}
