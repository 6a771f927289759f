package streamer

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

// openISCSI is how the ISIDs of Linux's open-iscsi begin (its IANA enterprise number, RFC 7143 §11.12.5).
var openISCSI = [3]byte{0x00, 0x02, 0x3d}

// redirectTrust is how long a redirected initiator must stay away. One that is back sooner cannot reach its streamer by itself, or lost it at once:
// it is forwarded. Where a firewall swallows its SYNs open-iscsi is back after its login_timeout, 15 s in our initramfs, and 3 s more.
const redirectTrust = 30 * time.Second

// redirects reports whether a login is sent to its streamer rather than forwarded. Firmware never is: iPXE writes the address that it was sent to into
// the iBFT, and then the operating system knows one streamer only. Streamers ask for no proof, so a device that gave one is forwarded.
func (d *Director) redirects(c *caller, now time.Time) bool {
	if !d.cfg.Redirect || c.proof != nil || [3]byte(c.login.Request.ISID[:3]) != openISCSI {
		return false
	}
	r, ok := d.table.last(c.device)
	return !ok || !r.Redirected || r.Target != c.login.Target || now.Sub(r.Since) > redirectTrust
}

// redirect tells an initiator where its streamer is (Target moved temporarily, RFC 7143 §11.13.5): it comes back here whenever it loses that one.
func (d *Director) redirect(ctx context.Context, c *caller) {
	s := c.moved
	before, failover := d.table.moved(s)
	d.cfg.Tell(encodeRuns([]run{s.runs(true)}))
	d.counts.login(site.Picked)
	d.counts.redirects.Add(1)
	what, detail := "redirect", fmt.Sprintf("%s version %d: to %s at %s", s.VDisk, s.Version, s.Streamer, s.portal)
	if failover {
		d.counts.failovers.Add(1)
		what = "failover"
		detail = fmt.Sprintf("%s version %d from %s, %s; redirected to %s at %s", s.VDisk, s.Version, before.Streamer, before.after(s.Since), s.Streamer, s.portal)
	}
	d.log.Info("iSCSI "+what, "device", s.Device.String(), "streamer", s.Streamer, "detail", detail)
	d.event(s.Device, what, detail)
	answer := c.login.Request.Reject(iscsi.StatusMovedTemporarily)
	answer.Data = iscsi.Keys{{Name: "TargetAddress", Value: s.portal}}.Append(nil)
	d.say(ctx, c.conn, answer)
}

// loops reports whether a director dialled a streamer and came here: an appliance stands in at the address of a streamer that fell silent. Its targets may
// log in there, as anywhere; a director that did would lead their logins in a circle.
func loops(v *site.View, conn net.Conn) bool {
	local, okLocal := conn.LocalAddr().(*net.TCPAddr)
	remote, okRemote := conn.RemoteAddr().(*net.TCPAddr)
	if !okLocal || !okRemote {
		return false
	}
	at, from := local.AddrPort(), remote.AddrPort().Addr().Unmap()
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if from != at.Addr() && !slices.ContainsFunc(v.Appliances, func(a site.Appliance) bool { return a.Address == from }) {
		return false
	}
	for _, s := range v.Streamers {
		if slices.Contains(s.Addresses, at) {
			return true
		}
	}
	return false
}
