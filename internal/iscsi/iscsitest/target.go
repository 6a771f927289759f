// Package iscsitest is a streamer for tests: an iSCSI target of a few lines, in the test's own process.
package iscsitest

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"everboot/internal/iscsi"
)

const blockSize = 512

// Target serves one logical unit under a name. It never writes.
type Target struct {
	Name    string
	Content []byte
	// Writable makes it say that it would.
	Writable bool
	// Serial is returned as the unit serial number, and marks who answered.
	Serial string
	// Refuse, if not zero, is the status that every login is answered with.
	Refuse iscsi.Status
	// Hang, if not nil, delays each answer to a command until the channel is closed, as a disk does that hangs.
	Hang chan struct{}

	logins atomic.Int64
	probes atomic.Int64 // of these
	mu     sync.Mutex
	conns  map[net.Conn]bool
	nexus  map[string]net.Conn // by the initiator's name and ISID
	dead   bool
}

// Logins returns how many logins were accepted.
func (t *Target) Logins() int { return int(t.logins.Load()) }

// DeviceLogins returns how many of them were not of probes.
func (t *Target) DeviceLogins() int { return int(t.logins.Load() - t.probes.Load()) }

// Serve answers connections until the listener is closed, and then closes the connections too. Both happen at Kill.
func (t *Target) Serve(l net.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	defer t.Kill()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if !t.add(conn) {
			conn.Close()
			continue
		}
		all.Go(func() {
			defer conn.Close()
			t.session(conn)
		})
	}
}

func (t *Target) add(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return false
	}
	if t.conns == nil {
		t.conns = make(map[net.Conn]bool)
	}
	t.conns[conn] = true
	return true
}

// Sessions returns how many of its sessions live, probes' and discoveries' too.
func (t *Target) Sessions() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.nexus)
}

// reinstate ends the session that a new one of the same initiator replaces (RFC 7143 §6.3.5). The returned function notes the new one's end.
func (t *Target) reinstate(name string, conn net.Conn) (over func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.nexus[name]; old != nil {
		old.Close()
	}
	if t.nexus == nil {
		t.nexus = make(map[string]net.Conn)
	}
	t.nexus[name] = conn
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.nexus[name] == conn {
			delete(t.nexus, name)
		}
	}
}

// Kill closes all connections, as a SIGKILL would.
func (t *Target) Kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dead = true
	for c := range t.conns {
		c.Close()
	}
}

func (t *Target) session(conn net.Conn) {
	p, err := iscsi.ReadPDU(conn, iscsi.MaxLoginData)
	if err != nil {
		return
	}
	login, err := iscsi.ParseLogin(p)
	if err != nil {
		return
	}
	status := t.Refuse
	if status == 0 && !login.Discovery && login.Target != t.Name {
		status = iscsi.StatusNotFound
	}
	if status != 0 {
		conn.Write(login.Request.Reject(status).PDU().Append(nil))
		return
	}
	t.logins.Add(1)
	if strings.Contains(login.Initiator, ":probe:") {
		t.probes.Add(1)
	}
	defer t.reinstate(fmt.Sprintf("%s,%x", login.Initiator, login.Request.ISID), conn)()
	s, err := iscsi.Accept(conn, login)
	if err != nil {
		return
	}
	targets := []iscsi.Target{{Name: t.Name, Addresses: []string{conn.LocalAddr().String() + ",1"}}}
	for {
		p, err := s.Next()
		if err != nil {
			return
		}
		handled, done, err := s.Common(p, targets)
		if err == nil && !handled {
			if t.Hang != nil {
				<-t.Hang
			}
			err = s.Reply(p, t.command(p))
		}
		if err != nil || done {
			return
		}
	}
}

// command answers a SCSI command in one PDU.
func (t *Target) command(p iscsi.PDU) iscsi.PDU {
	cdb := p.Header[32:48]
	switch cdb[0] {
	case 0x12: // INQUIRY
		if cdb[1]&1 != 0 {
			return dataIn(append([]byte{0, cdb[2], 0, byte(len(t.Serial))}, t.Serial...))
		}
		return dataIn(append([]byte{0, 0, 5, 2, 31, 0, 0, 0}, "EVERBOOTtest            0001"...))
	case 0x1a: // MODE SENSE(6)
		if t.Writable {
			return dataIn([]byte{3, 0, 0, 0})
		}
		return dataIn([]byte{3, 0, 0x80, 0})
	case 0x9e: // READ CAPACITY(16)
		b := make([]byte, 32)
		binary.BigEndian.PutUint64(b, uint64(len(t.Content)/blockSize-1))
		binary.BigEndian.PutUint32(b[8:], blockSize)
		return dataIn(b)
	case 0x28: // READ(10)
		at := int(binary.BigEndian.Uint32(cdb[2:])) * blockSize
		n := int(binary.BigEndian.Uint16(cdb[7:])) * blockSize
		if at+n <= len(t.Content) {
			return dataIn(t.Content[at : at+n])
		}
	}
	var a iscsi.PDU
	a.Header[0], a.Header[1], a.Header[3] = byte(iscsi.OpResponse), 0x80, 0x02             // CHECK CONDITION
	a.Data = []byte{0, 18, 0x70, 0, 0x07, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x27, 0, 0, 0, 0, 0} // write protected
	return a
}

func dataIn(data []byte) iscsi.PDU {
	a := iscsi.PDU{Data: data}
	a.Header[0], a.Header[1] = byte(iscsi.OpDataIn), 0x80|1 // final, with the status in it
	return a
}
