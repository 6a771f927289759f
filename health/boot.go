package health

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"everboot/site"
)

const (
	// bootInterval: of a server whose process died, the kernel says so at once, and two failures are 0.6 s at most. Silence takes the time-outs of two probes.
	bootInterval = 500 * time.Millisecond
	// streamerInterval bounds how old our word on a streamer can be; a process that dies is noticed at once, by Watch.
	streamerInterval = 500 * time.Millisecond
	streamerTimeout  = time.Second
	// streamerPrefix begins the names of streamers' checks.
	streamerPrefix = "streamer/"
)

// StreamerOf returns which streamer a check of OfStreamer is of.
func StreamerOf(check string) (name string, ok bool) { return strings.CutPrefix(check, streamerPrefix) }

// OfStreamer returns the check of a streamer of a view: it logs in to all that it holds, as node.
func OfStreamer(node string, v *site.View, s site.Streamer) Check {
	var targets []string
	foreign := make(map[string]int64)
	for _, r := range s.Replicas {
		targets = append(targets, r.IQN(v.Site))
		if r.Target != "" {
			foreign[r.Target] = v.SizeOf(r.Digest)
		}
	}
	slices.Sort(targets)
	probe := NewISCSI(ISCSIConfig{Node: node, Addresses: s.Addresses, Targets: targets, Foreign: foreign})
	return Check{
		Name: streamerPrefix + s.Name, Revision: fmt.Sprint(s.Addresses, targets, foreign),
		Interval: streamerInterval, Timeout: streamerTimeout,
		Probe: probe.Probe, Watch: probe.Watch, Close: probe.Close,
	}
}

// isBootstrap is what a probe wants to find in the bootstrap.
var isBootstrap = Contains("#!ipxe")

// BootTFTP returns the check of a boot address's TFTP: it loads the bootstrap.
func BootTFTP(name string, at netip.Addr, port uint16) Check {
	return Check{Name: name, Interval: bootInterval, Probe: TFTP(netip.AddrPortFrom(at, port), site.FileBootstrap, isBootstrap)}
}

// BootHTTP is the same by HTTP.
func BootHTTP(name string, at netip.Addr, port uint16) Check {
	url := "http://" + net.JoinHostPort(at.String(), strconv.Itoa(int(port))) + "/" + site.FileBootstrap
	return Check{Name: name, Interval: bootInterval, Probe: HTTP(url, isBootstrap, nil)}
}

// fileInterval is how often it is asked whether a boot file is there: that changes when a package is installed.
const fileInterval = 30 * time.Second

// BootFile returns the check of whether a boot address has a file, by HTTP. Only its word that there is none counts.
func BootFile(name string, at netip.Addr, port uint16, file string) Check {
	url := "http://" + net.JoinHostPort(at.String(), strconv.Itoa(int(port))) + "/" + file
	return Check{Name: name, Interval: fileInterval, Probe: isMissing(url)}
}
