package leases

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A page holds what is known of the addresses of one block, for a place that takes values of 512 KiB at most (Consul's key-value store): the
// longest records of 1,024 addresses are 370 KiB.
const (
	pageHeader = "everboot leases, page 1\n"
	pageBits   = 22
	// maxPage bounds what is read.
	maxPage = 512 << 10
)

var errPage = errors.New("it is not a page of leases that this version knows")

// PageOf returns the block that an IPv4 address is in.
func PageOf(a netip.Addr) netip.Prefix {
	p, _ := a.Prefix(pageBits) // fails for other than IP addresses only
	return p
}

// EncodePage returns what is known of a block. Offers are left out. Nothing known is nil.
func EncodePage(now time.Time, list []Lease) []byte {
	list = slices.DeleteFunc(slices.Clone(list), func(l Lease) bool { return l.State == Offered })
	if len(list) == 0 {
		return nil
	}
	b := binary.BigEndian.AppendUint64([]byte(pageHeader), uint64(now.UnixNano()))
	for _, l := range list {
		at := len(b)
		b = encode(append(b, 0, 0), l)
		binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	}
	return b
}

// DecodePage reads a page that another node may have written, of which it says when by its own clock. If that is ahead of ours, the times are moved back by as
// much; if it is behind, nobody can tell.
func DecodePage(now time.Time, page netip.Prefix, b []byte) ([]Lease, error) {
	head := len(pageHeader) + 8
	if len(b) < head || len(b) > maxPage || !bytes.HasPrefix(b, []byte(pageHeader)) {
		return nil, errPage
	}
	ahead := max(0, time.Unix(0, int64(binary.BigEndian.Uint64(b[len(pageHeader):]))).Sub(now))
	var list []Lease
	for b = b[head:]; len(b) > 0; {
		if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
			return nil, errPage
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		l, err := decode(b[2:n])
		if err != nil {
			return nil, err
		}
		if !page.Contains(l.Address) {
			return nil, fmt.Errorf("%s is not of the page %s", l.Address, page)
		}
		l.Start, l.Expires = l.Start.Add(-ahead), l.Expires.Add(-ahead)
		list, b = append(list, l), b[n:]
	}
	return list, nil
}

// Within returns what is known of a block of IPv4 addresses, by address. It looks at each of them: keep the block small.
func (t *Table) Within(now time.Time, block netip.Prefix) (list []Lease) {
	t.expire(now)
	for a := block.Masked().Addr(); block.Contains(a); a = a.Next() {
		if r := t.at(a); r != nil {
			list = append(list, t.lease(r))
		}
	}
	return list
}

// slow is how far the clock of who wrote a page may be behind.
const slow = time.Minute

// Recall takes into the table what some node of the service wrote down of an address some time ago. Unlike Merge it does not
// ask when: a page is old, and its clock is another's. A page never ends a lease that lives here, nor hands its address to another: the two records may have been made
// without knowledge of each other, by a disk that was new, say. Else the higher Version counts; and
// a client which has an address by both has it for the longer time.
func (t *Table) Recall(now time.Time, l Lease) (Lease, Verdict) {
	t.expire(now)
	if !l.Address.Is4() || l.State == Offered {
		return l, Kept
	}
	full := max(l.Expires.Sub(l.Start), 0)
	left := min(l.Expires.Sub(now), full)
	r := t.at(l.Address)
	if left > 0 && (r == nil || !r.is(l.Client)) { // whom we know we do not prolong: two nodes that read each other's pages would never end
		left = min(left+slow, full)
	}
	l.Expires = now.Add(left)
	l.Start = l.Expires.Add(-full)
	if l.Live() && left <= 0 {
		l.State = Expired
	}
	switch {
	case r == nil && !l.Live() && t.poolOf(l.Address) == nil:
		return l, Kept
	case r == nil, r.state == offered && l.Live():
		t.put(l)
		return l, Taken
	case (r.state == bound || r.state == expired) && l.State == Bound && r.is(l.Client):
		return t.join(r, l)
	case r.live():
		verdict := Kept
		if r.state == bound && l.State == Bound && l.Version >= r.version {
			verdict = Conflict
		}
		r.version = max(r.version, l.Version)
		return t.lease(r), verdict
	case l.Version > r.version:
		t.put(l)
		return l, Taken
	}
	return t.lease(r), Kept
}
