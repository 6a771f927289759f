package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// answerTimeout bounds how long the kernel may take for a request, so that a stop never hangs.
const answerTimeout = time.Second

// addressTable is the kernel's table of addresses, reached over netlink.
type addressTable struct {
	handle *netlink.Handle
	link   netlink.Link // only its index is used: no look-up by name later
	addrs  []netip.Addr
}

func openTable(link *net.Interface, addrs []netip.Addr) (*addressTable, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	if err := h.SetSocketTimeout(answerTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("setting netlink's timeout: %w", err)
	}
	return &addressTable{handle: h, link: &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: link.Index}}, addrs: addrs}, nil
}

// Hold adds the addresses or renews their lifetime. For an address that is there the kernel only notes the new lifetime:
// no route, no neighbour and no connection is touched.
func (t *addressTable) Hold(lifetime time.Duration) error {
	for _, addr := range t.addrs {
		seconds := int(lifetime / time.Second)
		a := &netlink.Addr{IPNet: single(addr), ValidLft: seconds, PreferedLft: seconds}
		if addr.Is6() {
			// Without duplicate detection, which would take a second in which nobody answers; and never as a source unless asked for.
			a.Flags, a.PreferedLft = unix.IFA_F_NODAD, 0
		}
		if err := t.handle.AddrReplace(t.link, a); err != nil {
			return fmt.Errorf("adding %s: %w", addr, err)
		}
	}
	return nil
}

// Drop removes the addresses: first as Hold adds them, without looking, then whatever other form somebody gave them.
func (t *addressTable) Drop() (int, error) {
	removed := 0
	var errs []error
	remove := func(a *netlink.Addr) {
		switch err := t.handle.AddrDel(t.link, a); {
		case err == nil:
			removed++
		case !errors.Is(err, unix.EADDRNOTAVAIL): // it was not there
			errs = append(errs, fmt.Errorf("removing %s: %w", a.IPNet, err))
		}
	}
	for _, addr := range t.addrs {
		remove(&netlink.Addr{IPNet: single(addr)})
	}
	there, err := t.list()
	errs = append(errs, err)
	for _, a := range there {
		remove(&a)
	}
	return removed, errors.Join(errs...)
}

// Held implements table. An address that is there twice, with bits of its own and those of its net, counts once.
func (t *addressTable) Held() (int, error) {
	there, err := t.list()
	distinct := map[string]bool{}
	for _, a := range there {
		distinct[a.IP.String()] = true
	}
	return len(distinct), err
}

// list returns those of our addresses that are on the interface, in whatever form.
func (t *addressTable) list() ([]netlink.Addr, error) {
	family := netlink.FAMILY_V4
	if t.addrs[0].Is6() {
		family = netlink.FAMILY_V6
	}
	there, err := t.handle.AddrList(t.link, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	return slices.DeleteFunc(there, func(a netlink.Addr) bool {
		addr, ok := netip.AddrFromSlice(a.IP)
		return !ok || !slices.Contains(t.addrs, addr.Unmap())
	}), nil
}

// Close closes the netlink socket.
func (t *addressTable) Close() error {
	t.handle.Close()
	return nil
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
