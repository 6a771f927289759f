package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"everboot/internal/lab"
)

const port = 7

// echo answers every datagram to the floating address, while the host has it.
func echo(h *lab.Host) (stop func(), err error) {
	var conn net.PacketConn
	err = h.Do(func() error {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var inner error
			if err := c.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1) }); err != nil {
				return err
			}
			return inner
		}}
		var err error
		conn, err = lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("%s:%d", floating, port))
		return err
	})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 64)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buffer[:n], from) // the address may have gone in between
		}
	}()
	return func() { _ = conn.Close(); <-done }, nil
}

// client sends a datagram each millisecond and notes which were answered.
type client struct {
	conn net.PacketConn
	done sync.WaitGroup
	quit chan struct{}

	mu       sync.Mutex
	sent     []time.Time
	answered map[uint64]bool
}

func startClient(h *lab.Host) (*client, error) {
	conn, err := h.ListenPacket("udp4", "198.18.0.4:0")
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, quit: make(chan struct{}), answered: map[uint64]bool{}}
	c.done.Add(2)
	go c.send()
	go c.receive()
	return c, nil
}

func (c *client) send() {
	defer c.done.Done()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	to := &net.UDPAddr{IP: net.ParseIP(floating), Port: port}
	for {
		select {
		case <-c.quit:
			return
		case <-tick.C:
		}
		c.mu.Lock()
		message := binary.BigEndian.AppendUint64(nil, uint64(len(c.sent)))
		c.sent = append(c.sent, time.Now())
		c.mu.Unlock()
		_, _ = c.conn.WriteTo(message, to) // what is not sent is not answered
	}
}

func (c *client) receive() {
	defer c.done.Done()
	buffer := make([]byte, 64)
	for {
		n, _, err := c.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		if n == 8 {
			c.mu.Lock()
			c.answered[binary.BigEndian.Uint64(buffer)] = true
			c.mu.Unlock()
		}
	}
}

// result returns the longest time without an answer since then, and how many datagrams had none. What was sent just now does
// not count.
func (c *client) result(since time.Time) (gap time.Duration, lost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const grace = 200 * time.Millisecond
	last := since
	missing := false
	for i, at := range c.sent {
		if at.Before(since.Add(-10*time.Millisecond)) || time.Since(at) < grace {
			continue
		}
		if !c.answered[uint64(i)] {
			lost++
			missing = true
			continue
		}
		if missing {
			gap = max(gap, at.Sub(last)-time.Millisecond)
		}
		last, missing = at, false
	}
	return gap, lost
}

func (c *client) stop() {
	close(c.quit)
	_ = c.conn.Close()
	c.done.Wait()
}
