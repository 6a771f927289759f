package appliance

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"everboot/appliance/web"
	"everboot/dhcp"
	"everboot/site"
)

// Status implements web.Backend.
func (w *worker) Status() web.Status {
	v := w.builder.View()
	s := web.Status{
		Node: w.cfg.Node, Version: w.opts.Version, Now: time.Now(), Started: w.started, View: v,
		VIP: w.mainVIP(), VIPs: w.vipStatus(), Checks: w.checks(), Sessions: w.sessions(v), Peers: w.peerStatus(), Warnings: slices.Concat(warnings(v), w.peerWarnings(), w.wishWarnings(), w.dhcpWarnings(), w.searchWarnings(), w.bookWarnings()),
	}
	s.StandIns = w.standInStatus()
	s.Warnings = append(s.Warnings, standInWarnings(s.StandIns)...)
	if w.http != nil {
		if err := w.http.CertificateProblem(s.Now); err != nil {
			s.Warnings = append(s.Warnings, err.Error())
		}
	}
	if w.dhcp != nil {
		s.Leases = w.dhcp.Live()
	}
	s.Transfers, s.Past = w.transfers(v)
	s.Media = w.media.Report(v)
	return s
}

// warnings says what somebody should look at.
func warnings(v *site.View) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if !v.Registry.Reachable {
		text := fmt.Sprintf("registry %s is not reachable", v.Registry.Kind)
		if v.Registry.Error != "" {
			text += ": " + v.Registry.Error
		}
		if v.FromDisk {
			text += "; serving from the saved view"
		} else {
			text += "; serving from what it said before"
		}
		add("%s", text)
	} else if v.Registry.Error != "" {
		add("registry %s: %s", v.Registry.Kind, v.Registry.Error)
	}
	for _, s := range v.SortedStreamers() {
		if !s.Registered {
			add("streamer %s is up, but the registry no longer names it", s.Name)
		}
		for _, r := range s.Replicas {
			for _, ver := range v.VDisks[r.VDisk].Versions {
				if ver.Number == r.Version && ver.Digest != "" && ver.Digest != r.Digest {
					add("streamer %s: its replica of %s version %d differs (%s, the version is %s) and is never served: replace it; "+
						"or, if it is the right one, pin it: everboot vdisk set %s --pin %d=%s, or in [[vdisk.version]]",
						s.Name, r.VDisk, r.Version, r.Digest.Short(), ver.Digest.Short(), r.VDisk, r.Version, r.Digest)
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.VDisks)) {
		if server := v.VDisks[name].Server; server != "" {
			add("vDisk %s: load balancing is off, all its targets stream from %s: they do not fail over", name, server)
		}
	}
	if name := site.WelcomesNoMore(v); name != "" {
		add("collection %s takes no more strangers in: %d of its devices have no name: name some, or remove them", name, site.MaxWelcomed)
	}
	for _, d := range v.SortedDevices() {
		if _, reason := site.Boot(v, site.BootRequest{MAC: d.MAC, Client: site.ClientIPXE}); reason != site.Offered {
			add("target %s would not boot: %s", cmp.Or(d.Name, d.MAC.String()), reason.Text())
		}
		if len(list) >= maxWarnings {
			add("there are more")
			break
		}
	}
	return list
}

// maxWarnings keeps a site whose last streamer died from listing all its targets.
const maxWarnings = 20

// Explain implements web.Backend.
func (w *worker) Explain(who string) (web.Explanation, error) {
	v := w.builder.View()
	mac, err := w.find(v, who)
	if err != nil {
		return web.Explanation{}, err
	}
	return w.explain(v, mac), nil
}

func (w *worker) explain(v *site.View, mac site.MAC) web.Explanation {
	e := web.Explanation{MAC: mac}
	for _, b := range w.timeline.Of(mac) {
		e.Events = append(e.Events, b.Events...)
	}
	for _, event := range slices.Backward(e.Events) {
		if dhcp.Answers(event) {
			e.Last, e.LastAt = event.Detail, event.At
			break
		}
	}
	d, known := v.Devices[mac]
	if known {
		e.Device = d.Name
	}
	if d.Address.IsValid() {
		e.Address = d.Address.String()
	} else if lease, ok := w.leaseOf(mac); ok {
		e.Address = lease.String()
	}
	// The last stage of the chain needs everything that the earlier ones need.
	offer, reason := site.Boot(v, site.BootRequest{MAC: mac, Client: site.ClientIPXE})
	e.Boots, e.Reason, e.Text = reason == site.Offered, reason, w.reasonText(v, offer.Assignment, reason)
	e.IPv6 = w.explain6(v, mac)
	e.Assignment, e.Streamer = offer.Assignment, offer.Streamer
	if offer.Server.IsValid() {
		e.Server = offer.Server.String()
	}
	return e
}

// Offer implements web.Backend. It stands in the timeline as our own DHCP's would: the client asked, by way of another server.
func (w *worker) Offer(q site.BootRequest) web.BootOffer {
	v := w.builder.View()
	offer, reason := site.Boot(v, q)
	text := w.reasonText(v, offer.Assignment, reason)
	detail := "another DHCP server asks where it boots from: " + text
	if reason == site.Offered {
		detail += "; boot file " + offer.File + " from " + offer.Server.String()
	}
	if q.Client != site.ClientOther {
		w.event(site.Event{At: time.Now(), MAC: q.MAC, What: "offer", Detail: detail, Begins: true})
	}
	return web.BootOffer{Offer: offer, Reason: reason, Text: text}
}

// Device implements web.Backend.
func (w *worker) Device(who string) (web.DeviceStatus, error) {
	v := w.builder.View()
	mac, err := w.find(v, who)
	if err != nil {
		return web.DeviceStatus{}, err
	}
	d := web.DeviceStatus{Now: time.Now(), Explanation: w.explain(v, mac), Boots: w.timeline.Of(mac)}
	d.Explanation.Events = nil // they stand in Boots
	for _, s := range w.sessions(v) {
		if s.MAC == mac {
			d.Sessions = append(d.Sessions, s)
		}
	}
	if w.director != nil {
		if last, ok := w.director.Last(mac); ok {
			d.Last = &last
		}
	}
	return d, nil
}

// reasonText adds to a reason what it is about.
func (w *worker) reasonText(v *site.View, a site.Assignment, reason site.Reason) string {
	text := reason.Text()
	switch reason {
	case site.TFTPDown:
		text += prefixed(": ", v.Boot.TFTP.Reason)
	case site.HTTPDown:
		text += prefixed(": ", v.Boot.HTTP.Reason)
	case site.NoHealthyStreamer, site.DigestDiffers, site.AllDraining, site.FixedServerDown, site.NoneInSubnet:
		for _, s := range v.SortedStreamers() {
			for _, r := range s.Replicas {
				if r.VDisk != a.VDisk.Name || r.Version != a.Version.Number {
					continue
				}
				state := cmp.Or(string(s.Check.Health), "not probed yet")
				switch {
				case r.Digest != a.Version.Digest:
					state = "holds " + r.Digest.Short()
				case s.Check.Health == site.Up:
					state = string(s.State)
				}
				text += fmt.Sprintf("; %s: %s%s", s.Name, state, prefixed(", ", s.Check.Reason))
			}
		}
	}
	return text
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// find returns the MAC that somebody means by a MAC, a device's name or an IP address.
func (w *worker) find(v *site.View, who string) (site.MAC, error) {
	if addr, err := netip.ParseAddr(who); err == nil {
		if mac := w.macAt(addr); !mac.IsZero() {
			return mac, nil
		}
		return site.MAC{}, fmt.Errorf("nobody is known at %s: it is no device's address and no lease", addr)
	}
	for _, d := range v.Devices {
		if d.Name != "" && d.Name == who {
			return d.MAC, nil
		}
	}
	mac, err := site.ParseMAC(who)
	if err != nil {
		return mac, fmt.Errorf("%q is no MAC address, no IP address and no device's name", who)
	}
	return mac, nil
}

// macAt returns who has an address: by reservation, or by lease. The zero MAC means that nobody knows.
func (w *worker) macAt(addr netip.Addr) site.MAC {
	addr = addr.Unmap()
	if d, ok := w.builder.View().DeviceAt(addr); ok {
		return d.MAC
	}
	if w.dhcp6 != nil && addr.Is6() {
		return w.dhcp6.Holder(addr)
	}
	if w.dhcp != nil {
		if l, ok := w.dhcp.LeaseAt(addr); ok && l.Live() {
			return l.MAC
		}
	}
	return site.MAC{}
}

// Put implements web.Backend. The registry checks the object.
func (w *worker) Put(ctx context.Context, kind site.Kind, key string, value []byte) error {
	if kind == site.KindDevice {
		if err := w.cfg.checkNewAddress(w.builder.View(), w.own, value); err != nil {
			return err
		}
	}
	return w.registry.Put(ctx, kind, key, value)
}

// Delete implements web.Backend.
func (w *worker) Delete(ctx context.Context, kind site.Kind, key string) error {
	return w.registry.Delete(ctx, kind, key)
}

// AwaitShown implements web.Backend.
func (w *worker) AwaitShown(ctx context.Context, kind site.Kind, key string, value []byte) {
	awaitShown(ctx, w.builder.said.Load, kind, key, value)
}

// checks returns the appliance's own probes by name.
func (w *worker) checks() []web.Check {
	var list []web.Check
	for _, r := range w.health.Status() {
		list = append(list, web.Check{Name: r.Name, Check: r.Check})
	}
	slices.SortFunc(list, func(a, b web.Check) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
