// Package refusals keeps a host from refusing connections to its floating addresses while nobody listens there.
//
// When guard and worker of an appliance are killed together, the kernel keeps the addresses for up to 3 s, and refuses whoever connects. open-iscsi
// then waits 3 s before it tries again. A SYN without an answer it sends again after 1 s, when another appliance has the address. So the kernel
// drops its own refusals: a table of nftables, which outlives the process that made it.
package refusals

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is that of the table; nobody else's rules are touched.
const tableName = "everboot"

// Drop has the kernel drop its refusals of connections to a TCP port at some addresses. What was dropped before no longer is.
func Drop(addresses []netip.Addr, port uint16) error {
	c := new(nftables.Conn)
	t := empty(c)
	chain := c.AddChain(&nftables.Chain{
		Name: "refusals", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
	})
	for _, a := range addresses {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: match(a, port)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("writing the table %s of nftables: %w", tableName, err)
	}
	return nil
}

// Restore takes back what Drop did.
func Restore() error {
	c := new(nftables.Conn)
	c.DelTable(empty(c))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("removing the table %s of nftables: %w", tableName, err)
	}
	return nil
}

// empty returns the table without what was in it, also if there was none.
func empty(c *nftables.Conn) *nftables.Table {
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	c.AddTable(t)
	c.DelTable(t)
	return c.AddTable(t)
}

const (
	tcpPort, tcpSeq, tcpFlags = 0, 4, 13 // offsets of source port, sequence number and flags (RFC 9293 §3.1)
	flagRST, flagACK          = 0x04, 0x10
)

// match matches the answer to a SYN that nobody listens for: RST and ACK with the sequence number 0 (RFC 9293 §3.5.2, group 1). The reset of an
// established connection has its sequence number, and the answer to a stray ACK has no ACK: both go out, and the tickle lives by the latter.
func match(a netip.Addr, port uint16) []expr.Any {
	family, at := byte(unix.NFPROTO_IPV4), uint32(12) // of the source address in the header
	if a.Is6() {
		family, at = unix.NFPROTO_IPV6, 8
	}
	same := func(want []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want} }
	tcp := func(offset, length uint32) *expr.Payload {
		return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, same([]byte{family}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: uint32(a.BitLen() / 8)}, same(a.AsSlice()),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, same([]byte{unix.IPPROTO_TCP}),
		tcp(tcpPort, 2), same(binary.BigEndian.AppendUint16(nil, port)),
		tcp(tcpSeq, 4), same(make([]byte, 4)),
		tcp(tcpFlags, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{flagRST | flagACK}, Xor: []byte{0}}, same([]byte{flagRST | flagACK}),
		&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
	}
}
