package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Segment is an Ethernet: a bridge in a namespace of its own. It does not speak (no spanning tree, no IPv6, no multicast
// snooping) and forwards from the first moment.
type Segment struct {
	lab   *Lab
	name  string
	space *space
	ports int // guarded by lab.mu
	pcap  *capture
}

const bridgeName = "br0"

// Segment makes an Ethernet.
func (l *Lab) Segment(name string) *Segment {
	s := &Segment{lab: l, name: name, space: l.space("segment " + name)}
	err := s.space.sysctl(map[string]string{
		"ipv6/conf/all/disable_ipv6":     "1",
		"ipv6/conf/default/disable_ipv6": "1",
	})
	if err == nil {
		err = s.space.do(addBridge)
	}
	if err != nil {
		l.fail(fmt.Errorf("making segment %s: %w", name, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = append(l.segments, s)
	return s
}

// addBridge makes the bridge in the namespace of the calling thread.
func addBridge() error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(bridgeName)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, []byte{0})
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("adding the bridge: %w", err)
	}
	br, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("finding the bridge: %w", err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return fmt.Errorf("setting the bridge up: %w", err)
	}
	return nil
}

// Name is the name that the segment was made with.
func (s *Segment) Name() string { return s.name }

func (s *Segment) close() { s.stopCapture() }

// Cable joins one interface of a host or machine to a segment.
type Cable struct {
	segment  *Segment
	port     string // the bridge's end
	number   int    // of the port
	iface    string // the host's end
	mac      net.HardwareAddr
	host     *Host // or machine
	machine  *Machine
	prefixes []string // the addresses that Join gave

	silent, cut bool // guarded by lab.mu
}

// Join lays a cable from the host to the segment. The host's end is eth0, or the next free number; it is up, has the addresses
// (such as "198.18.0.2/24"; IPv6 is used without duplicate address detection) and a MAC that depends on host and number alone.
func (h *Host) Join(s *Segment, prefixes ...string) *Cable {
	h.lab.mu.Lock()
	number := len(h.cables)
	port, id := s.newPort(h.name)
	h.lab.mu.Unlock()
	c := &Cable{
		segment: s, port: port, number: id, host: h, iface: fmt.Sprintf("eth%d", number),
		mac: macOf(h.name, number), prefixes: prefixes,
	}
	if err := c.lay(h); err != nil {
		h.lab.fail(fmt.Errorf("joining %s to segment %s: %w", h.name, s.name, err))
	}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	h.cables = append(h.cables, c)
	return c
}

// newPort names the bridge's end of a cable so that a person recognises it. The lab's lock is held.
func (s *Segment) newPort(name string) (port string, number int) {
	s.ports++
	suffix := fmt.Sprintf(".%d", s.ports)
	return name[:min(len(name), unix.IFNAMSIZ-1-len(wireMark)-len(suffix))] + suffix, s.ports
}

// macOf makes a locally administered address: equal names give equal captures.
func macOf(host string, number int) net.HardwareAddr {
	sum := fnv.New32a()
	fmt.Fprintf(sum, "%s/%d", host, number)
	return append(net.HardwareAddr{0x02, 0xeb}, sum.Sum(nil)...)
}

func (c *Cable) lay(h *Host) error {
	err := c.segment.space.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = c.port
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerHardwareAddr = c.iface, c.mac
		veth.PeerNamespace = netlink.NsFd(h.space.file.Fd())
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("adding veth %s: %w", c.port, err)
		}
		if !h.lab.options.Offload {
			if err := trueFrames(c.port); err != nil {
				return err
			}
		}
		return setPort(c.port, false, false)
	})
	if err != nil {
		return err
	}
	err = h.space.do(func() error {
		if !h.lab.options.Offload {
			if err := trueFrames(c.iface); err != nil {
				return err
			}
		}
		return configure(c.iface, c.prefixes)
	})
	if err != nil {
		return err
	}
	return c.settle()
}

// settle waits until the kernel has noticed that a cable is whole: it does so a little later, and only then does the bridge
// forward and does a host use its IPv6 addresses. It does not wait long: an interface may have been set down by somebody.
func (c *Cable) settle() error {
	const patience = 500 * time.Millisecond
	wait := func(iface string) func() error {
		return func() error {
			err := Eventually(patience, "carrier at "+iface, func() error { return settled(iface) })
			if errors.Is(err, errNotYet) {
				return nil
			}
			return err
		}
	}
	if c.host != nil {
		if err := c.host.space.do(wait(c.iface)); err != nil {
			return err
		}
	}
	return c.segment.space.do(wait(c.port))
}

func settled(iface string) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("finding %s: %w", iface, err)
	}
	if link.Attrs().OperState != netlink.OperUp {
		return errNotYet
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return fmt.Errorf("listing the addresses of %s: %w", iface, err)
	}
	for _, a := range list {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			return errNotYet
		}
	}
	return nil
}

// configure sets an interface up, with addresses, in the namespace of the calling thread.
func configure(iface string, prefixes []string) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("finding %s: %w", iface, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting %s up: %w", iface, err)
	}
	for _, text := range prefixes {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("reading address %q: %w", text, err)
		}
		addr := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("adding %s to %s: %w", prefix, iface, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// MAC is the address of the host's end.
func (c *Cable) MAC() net.HardwareAddr { return c.mac }

// Segment is the segment at the other end.
func (c *Cable) Segment() *Segment { return c.segment }

// Interface is the name of the host's end.
func (c *Cable) Interface() string { return c.iface }

// Cut cuts the cable: both ends lose their carrier.
func (c *Cable) Cut() { c.change("cutting", func() { c.cut = true }) }

// Mend undoes Cut.
func (c *Cable) Mend() { c.change("mending", func() { c.cut = false }) }

// Silence drops every frame, both ways, while the carrier stays: the death that no end can see. Silence(false) undoes it.
func (c *Cable) Silence(on bool) { c.change("silencing", func() { c.silent = on }) }

// Lose drops frames by chance, both ways, so many of a hundred. It needs the program nft.
func (c *Cable) Lose(percent int) {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	table := fmt.Sprintf("table netdev lose_%d", c.number)
	rules := table + "\ndelete " + table + "\n" // the first makes the second succeed
	if percent > 0 {
		drop := "drop"
		if percent < 100 {
			drop = fmt.Sprintf("numgen random mod 100 < %d drop", percent)
		}
		rules += table + " {\n"
		for _, hook := range []string{"ingress", "egress"} {
			rules += fmt.Sprintf("chain lose_%s { type filter hook %s device %q priority 0; %s; }\n", hook, hook, c.port, drop)
		}
		rules += "}\n"
	}
	if _, err := c.segment.lab.run(ctx, c.segment.space, c.segment.name, []string{"nft", rules}); err != nil {
		c.segment.lab.fail(fmt.Errorf("losing %d %% at %s: %w", percent, c.port, err))
	}
}

func (c *Cable) change(doing string, set func()) {
	l := c.segment.lab
	l.mu.Lock()
	set()
	cut, silent := c.cut, c.silent
	err := c.segment.space.do(func() error { return setPort(c.port, cut, silent) })
	if err == nil && !cut {
		err = c.settle()
	}
	l.mu.Unlock()
	if err == nil && c.machine != nil {
		err = c.machine.setLink(!cut)
	}
	if err != nil {
		l.fail(fmt.Errorf("%s cable %s of segment %s: %w", doing, c.port, c.segment.name, err))
	}
	l.log.Debug("cable changed", "segment", c.segment.name, "port", c.port, "cut", cut, "silent", silent)
}

// setPort makes a port what it should be. A silent port is unplugged inside the switch: its carrier stays.
func setPort(port string, cut, silent bool) error {
	link, err := netlink.LinkByName(port)
	if err != nil {
		return fmt.Errorf("finding %s: %w", port, err)
	}
	if cut {
		if err := netlink.LinkSetDown(link); err != nil {
			return fmt.Errorf("setting %s down: %w", port, err)
		}
	}
	if silent {
		if err := netlink.LinkSetNoMaster(link); err != nil {
			return fmt.Errorf("unplugging %s from the bridge: %w", port, err)
		}
	} else if err := setMaster(link); err != nil {
		return err
	}
	if !cut {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("setting %s up: %w", port, err)
		}
	}
	return nil
}

// setMaster makes an interface a port of the bridge, if it is not yet.
func setMaster(link netlink.Link) error {
	br, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("finding the bridge: %w", err)
	}
	if link.Attrs().MasterIndex == br.Attrs().Index {
		return nil
	}
	if err := netlink.LinkSetMaster(link, br); err != nil {
		return fmt.Errorf("plugging %s into the bridge: %w", link.Attrs().Name, err)
	}
	return nil
}
