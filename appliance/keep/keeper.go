package keep

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"everboot/site"
)

// sendTimeout bounds how long the worker waits for a guard that does not read.
const sendTimeout = time.Second

// Keeper is the worker's side. Its methods may be called by several goroutines. A nil Keeper keeps nothing.
type Keeper struct {
	conn   *net.UnixConn
	last   atomic.Uint64
	former []site.Connection
}

// Inherited returns the Keeper of the socket that the guard gave this process as a file. It waits for what the guard has to tell.
func Inherited(f *os.File) (*Keeper, error) {
	conn, err := packetConn(f)
	if err != nil {
		return nil, fmt.Errorf("taking over the socket that keeps connections: %w", err)
	}
	k := &Keeper{conn: conn}
	buffer := make([]byte, maxMessage)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("hearing which connections there were: %w", err)
		}
		switch c, ok := site.ParseConnection(buffer[min(1, n):n]); {
		case n > 0 && buffer[0] == opFormer && ok:
			k.former = append(k.former, c)
		case n == 1 && buffer[0] == opEnded:
			return k, nil
		}
	}
}

// Former returns the connections that the worker before this one had when it died.
func (k *Keeper) Former() []site.Connection {
	if k == nil {
		return nil
	}
	return k.former
}

// Keep gives the guard a duplicate of a socket. The returned function makes it let go; call it when the socket is closed, before or after. c
// is zero for a socket without a peer. Where the guard cannot be told, nothing is kept: the socket then ends with this process.
func (k *Keeper) Keep(socket syscall.Conn, c site.Connection) (drop func()) {
	if k == nil {
		return func() {}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return func() {}
	}
	id := k.last.Add(1)
	sent := false
	err = raw.Control(func(fd uintptr) {
		sent = k.send(c.Append(message(opTake, id)), unix.UnixRights(int(fd)))
	})
	if err != nil || !sent {
		return func() {}
	}
	return sync.OnceFunc(func() { k.send(message(opDrop, id), nil) })
}

func message(op byte, id uint64) []byte { return binary.BigEndian.AppendUint64([]byte{op}, id) }

func (k *Keeper) send(b, rights []byte) bool {
	if err := k.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return false
	}
	_, _, err := k.conn.WriteMsgUnix(b, rights, nil)
	return err == nil
}

// Close closes the worker's side: the guard then drops what it still holds when it is told to.
func (k *Keeper) Close() error {
	if k == nil {
		return nil
	}
	return k.conn.Close()
}
