package tftp

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Hosts returns addresses as they stand in URLs: with a port unless it is HTTP's own, IPv6 in brackets.
func Hosts(addrs []netip.Addr, port uint16) []string {
	hosts := make([]string, 0, len(addrs))
	for _, a := range addrs {
		host := a.String()
		switch {
		case port != 80:
			host = net.JoinHostPort(host, strconv.Itoa(int(port)))
		case a.Is6():
			host = "[" + host + "]"
		}
		hosts = append(hosts, host)
	}
	return hosts
}

// Bootstrap returns the iPXE script that takes a machine to its own script. It asks the hosts (addresses or names, each perhaps
// with a port) in order, any number of them, and begins again for ever: it never ends, because an iPXE script that ends hands
// the machine to its next boot device, often a local disk. Without hosts it asks the server that it came from.
//
// What is in it, and why:
//
//   - netX is the NIC that was opened last, which is the one that the machine booted from; net0 is only the first that was found.
//   - An autoexec.ipxe is run before the NIC has an address, hence dhcp. iPXE's own dhcp tries every NIC that there is.
//   - chain --timeout: without it a dead address costs 15.6 s, with it 2 s.
//   - chain --autofree: else each round would leave one more image in memory.
//   - A target's script that cannot go on waits and ends with "exit 0", so that rounds do not nest: iPXE's stack is small.
//     "everboot" is set so that the script knows that there is a loop to return to.
//   - inc ${delay} ${delay} doubles: 1, 2, 4, 8, 8, … seconds.
//
// All of it runs in iPXE of 2019 (QEMU's ROM) as well as in today's.
func Bootstrap(hosts []string) string {
	if len(hosts) == 0 {
		hosts = []string{"${next-server}"}
	}
	var b strings.Builder
	b.WriteString(bootstrapHead)
	for i, h := range hosts {
		b.WriteString("set s" + strconv.Itoa(i) + " " + h + "\n")
	}
	// An older bootstrap, on a boot medium, say, may have set more of them.
	b.WriteString("clear s" + strconv.Itoa(len(hosts)) + " ||\n")
	b.WriteString(bootstrapLoop)
	return b.String()
}

const bootstrapHead = `#!ipxe
# everboot: ask the login servers in turn for the script of this machine, for ever
echo everboot: bootstrap
set everboot 1
`

const bootstrapLoop = `set delay:int32 1
:start
isset ${netX/ip} && goto ask ||
echo everboot: asking for an address
dhcp || goto wait
:ask
set i:int32 0
:next
set server ${s${i}}
isset ${server} || goto wait
echo everboot: asking ${server} for the script of ${netX/mac}
chain --autofree --timeout 2000 http://${server}/boot?mac=${netX/mac}&uuid=${uuid}&platform=${platform}&arch=${buildarch} && goto again ||
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
