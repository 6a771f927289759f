package site

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Hosts returns addresses as they stand in URLs: with a port unless it is HTTP's own, IPv6 in brackets.
func Hosts(addrs []netip.Addr, port uint16) []string {
	hosts := make([]string, 0, len(addrs))
	for _, a := range addrs {
		hosts = append(hosts, hostAt(a.String(), port))
	}
	return hosts
}

// hostAt returns an address or a name as it stands in a URL.
func hostAt(host string, port uint16) string {
	switch {
	case port != 80:
		return net.JoinHostPort(host, strconv.Itoa(int(port)))
	case strings.Contains(host, ":"):
		return "[" + host + "]"
	}
	return host
}

// Bootstrap says what the iPXE script does that takes a machine to its own script. With Hosts alone it is what DHCP and TFTP hand
// out; the rest is for boot media, which come to a machine that knows nothing yet.
type Bootstrap struct {
	// Hosts are the login servers, in order, any number of them: addresses or names, each perhaps with a port, and perhaps with
	// https:// before it. Without any the script asks the server that it came from.
	Hosts []string
	// Version is that of the Medium that it is; 0: it was made by hand. It changes nothing.
	Version int
	Site    string // goes with the question, so that another site's appliance does not answer; empty: whoever answers
	Key     string // goes with the question, so that the appliances tell their own media; empty: none
	MAC     MAC    // of the card to use, and of the only machine to boot; zero: any
	VLAN    int    // 1 to 4094; 0: untagged
	// Collection goes with the question: a machine that nobody knows becomes a device of it, if it takes strangers in. Empty: of the first that does.
	Collection string
	// Address is this machine's own, with the length of the network's prefix; zero: from DHCP. Gateway and DNS go with it.
	Address      netip.Prefix
	Gateway, DNS netip.Addr
}

// host is a name or an IPv4 address, or an IPv6 address in brackets, with or without a port.
var host = regexp.MustCompile(`^(https://)?([0-9A-Za-z]([0-9A-Za-z.-]{0,251}[0-9A-Za-z])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

// bootKey is what a key may look like: it stands in a URL as it is.
var bootKey = regexp.MustCompile(`^[0-9A-Za-z_-]{16,64}$`)

// CheckBootKey returns an error that says what a key of boot media looks like.
func CheckBootKey(key string) error {
	if !bootKey.MatchString(key) {
		return errors.New("a boot key has 16 to 64 letters, digits, - and _; make one with: head -c 24 /dev/urandom | base64 | tr +/ -_")
	}
	return nil
}

// Check returns an error that says what to mend.
func (b Bootstrap) Check() error {
	for _, h := range b.Hosts {
		if !host.MatchString(h) {
			return fmt.Errorf("login server %q: use an address or a name, perhaps with a port, such as 198.18.0.10 or boot.example.net:8080", h)
		}
	}
	if b.Site != "" {
		if err := CheckName("site", b.Site); err != nil {
			return err
		}
	}
	if b.Collection != "" {
		if err := CheckName("collection", b.Collection); err != nil {
			return err
		}
	}
	if b.Key != "" {
		if err := CheckBootKey(b.Key); err != nil {
			return err
		}
	}
	if b.VLAN < 0 || b.VLAN > 4094 {
		return fmt.Errorf("VLAN %d: use 1 to 4094", b.VLAN)
	}
	return b.checkAddress()
}

func (b Bootstrap) checkAddress() error {
	if !b.Address.IsValid() {
		if b.Gateway.IsValid() || b.DNS.IsValid() {
			return errors.New("a gateway or a DNS server without an address: with DHCP both come from there")
		}
		return nil
	}
	network := b.Address.Masked()
	switch {
	case !b.Address.Addr().Is4():
		return fmt.Errorf("address %s: use an IPv4 address", b.Address)
	case b.Address.Bits() < 31 && b.Address.Addr() == network.Addr():
		return fmt.Errorf("address %s is the network's own; give the machine's", b.Address)
	case b.Gateway.IsValid() && !network.Contains(b.Gateway):
		return fmt.Errorf("gateway %s is not inside %s", b.Gateway, network)
	case b.DNS.IsValid() && !b.DNS.Is4():
		return fmt.Errorf("DNS server %s: use an IPv4 address", b.DNS)
	}
	return nil
}

// Script returns the iPXE script. It asks the login servers in order, 2 s each, and begins again for ever: it never ends, because an iPXE
// script that ends hands the machine to its next boot device, often a local disk.
//
// What is in it, and why:
//
//   - netX is the NIC that was opened last, which is the one that the machine booted from; net0 is only the first that was found.
//   - An autoexec.ipxe is run before the NIC has an address, hence dhcp. iPXE's own dhcp tries every NIC that there is.
//   - chain --timeout: without it a dead address costs 15.6 s, with it 2 s.
//   - chain --autofree: else each round would leave one more image in memory.
//   - A target's script that cannot go on waits and ends with "exit 0", so that rounds do not nest: iPXE's stack is small.
//     "everboot" is set so that the script knows that there is a loop to return to.
//   - An answer tells of the login servers of now (TellHosts), which are asked first from then on: what was made with this script may be older.
//   - inc ${delay} ${delay} doubles: 1, 2, 4, 8, 8, … seconds.
//
// With Hosts alone all of it runs in iPXE of 2019 (QEMU's ROM) as well as in today's.
func (b Bootstrap) Script() string {
	var s strings.Builder
	s.WriteString(bootstrapHead)
	hosts := b.Hosts
	if len(hosts) == 0 {
		hosts = []string{"${next-server}"}
	}
	s.WriteString(setHosts(ownServers, hosts))
	s.WriteString("set delay:int32 1\n:start\n")
	b.writeNetwork(&s)
	query := ""
	if b.Site != "" {
		query += "&site=" + b.Site
	}
	if b.Key != "" {
		query += "&key=" + b.Key
	}
	if b.Collection != "" {
		query += "&collection=" + b.Collection
	}
	s.WriteString(strings.NewReplacer("TOLD", toldServers, "OWN", ownServers, "QUERY", query).Replace(bootstrapAsk))
	return s.String()
}

// The bootstrap's two lists of login servers, each in settings with a number behind the name: those that an answer told, which are of now, are asked
// before those that it was made with.
const (
	ownServers  = "s"
	toldServers = "told"
)

// TellHosts returns the line of a target's script that tells the bootstrap to which it returns where to ask first, from now until the machine is
// switched off. Hosts are as in Bootstrap. A bootstrap that was made before there was such a list does not look at it.
func TellHosts(hosts []string) string { return setHosts(toldServers, hosts) }

// setHosts sets NAME0, NAME1, … to what stands before a path.
func setHosts(name string, hosts []string) string {
	var s strings.Builder
	for i, h := range hosts {
		if !strings.HasPrefix(h, "https://") {
			h = "http://" + h
		}
		fmt.Fprintf(&s, "set %s%d %s\n", name, i, h)
	}
	// An older list may have been longer.
	fmt.Fprintf(&s, "clear %s%d ||\n", name, len(hosts))
	return s.String()
}

// writeNetwork takes the machine to an address. dev is the card; of several it is the one with the MAC, or the first that has a link.
func (b Bootstrap) writeNetwork(s *strings.Builder) {
	if b.MAC.IsZero() && b.VLAN == 0 && !b.Address.IsValid() {
		s.WriteString("isset ${netX/ip} && goto ask ||\necho everboot: asking for an address\ndhcp || goto wait\n")
		return
	}
	s.WriteString("isset ${dev} && isset ${${dev}/ip} && goto ask ||\nset nic:int32 0\n:card\nisset ${net${nic}/mac} || goto nocard\n")
	if b.MAC.IsZero() {
		s.WriteString("ifopen net${nic} && iflinkwait --timeout 5000 net${nic} && goto card-found ||\nifclose net${nic} ||\n")
	} else {
		fmt.Fprintf(s, "iseq ${net${nic}/mac} %s && goto card-found ||\n", b.MAC)
	}
	s.WriteString("inc nic\ngoto card\n:nocard\n")
	if b.MAC.IsZero() {
		s.WriteString("echo everboot: no network card has a link\ngoto wait\n")
	} else {
		fmt.Fprintf(s, "echo everboot: no network card is %s: this medium is for another machine\ngoto wait\n", b.MAC)
	}
	s.WriteString(":card-found\nset dev net${nic}\n")
	if b.VLAN != 0 {
		fmt.Fprintf(s, "vcreate --tag %d ${dev} ||\nset dev ${dev}-%d\n", b.VLAN, b.VLAN)
	}
	if !b.Address.IsValid() {
		s.WriteString("echo everboot: asking for an address on ${dev}\ndhcp ${dev} || goto wait\n")
		return
	}
	mask := net.IP(net.CIDRMask(b.Address.Bits(), 32))
	fmt.Fprintf(s, "ifopen ${dev} || goto wait\nset ${dev}/ip %s\nset ${dev}/netmask %s\n", b.Address.Addr(), mask)
	if b.Gateway.IsValid() {
		fmt.Fprintf(s, "set ${dev}/gateway %s\n", b.Gateway)
	}
	if b.DNS.IsValid() {
		fmt.Fprintf(s, "set ${dev}/dns %s\n", b.DNS)
	}
}

const bootstrapHead = `#!ipxe
# everboot: ask the login servers in turn for the script of this machine, for ever
echo everboot: bootstrap
set everboot 1
`

const bootstrapAsk = `:ask
set list TOLD
:list
set i:int32 0
:next
set server ${${list}${i}}
isset ${server} && goto try ||
iseq ${list} OWN && goto wait ||
set list OWN
goto list
:try
echo everboot: asking ${server} for the script of ${netX/mac}
chain --autofree --timeout 2000 ${server}/boot?mac=${netX/mac}&uuid=${uuid}&platform=${platform}&arch=${buildarch}QUERY && goto again ||
inc i
goto next
:again
set delay:int32 1
goto start
:wait
echo everboot: no login server answers, trying again in ${delay} s
sleep ${delay}
inc delay ${delay}
iseq ${delay} 16 && set delay:int32 8 ||
goto start
`
