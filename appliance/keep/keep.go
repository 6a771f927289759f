// Package keep lets sockets outlive the process that uses them. An appliance's worker gives its guard a duplicate of each TCP connection at
// the floating address and of its TFTP socket. When the worker is killed the kernel then closes nothing: no FIN, RST or ICMP error tells a
// target to come back to an address where nobody listens, which would cost an initiator seconds. The guard first lets the address go, and
// drops the duplicates when nothing can leave from it any more. The next owner of the address tells the targets (vip's tickle), and they
// come back to one who listens.
//
// The price: a connection that the worker closes is closed when the guard has let go of its duplicate, which it does at once.
package keep

import (
	"errors"
	"fmt"
	"net"
	"os"

	"everboot/site"
)

// A message between worker and guard is one datagram of a socket pair, in the worker's or the guard's words:
//
//	take   worker: op, id (8 bytes), connection; with the descriptor beside it
//	drop   worker: op, id
//	former guard:  op, connection: the worker before had it
//	ended  guard:  op: that was all of them
const (
	opTake   = 't'
	opDrop   = 'd'
	opFormer = 'f'
	opEnded  = 'e'

	maxMessage = 1 + 8 + site.ConnectionLen
)

// packetConn makes a net.UnixConn of a socket, and closes the file.
func packetConn(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is no Unix socket", f.Name()), c.Close(), f.Close())
	}
	return u, f.Close()
}
