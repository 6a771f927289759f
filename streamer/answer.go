package streamer

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

// status is what an initiator is told. Class 2 makes it give up, class 3 makes it come back.
func status(r site.Reason) iscsi.Status {
	switch r {
	case site.UnknownDevice, site.MalformedInitiator, site.NotAuthenticated:
		return iscsi.StatusAuthentication
	case site.NotItsVDisk, site.NotItsAddress:
		return iscsi.StatusAuthorization
	case site.MalformedTarget, site.OtherSite:
		return iscsi.StatusNotFound
	}
	return iscsi.StatusUnavailable
}

func (d *Director) refuse(ctx context.Context, c *caller, reason site.Reason) {
	d.counts.login(reason)
	d.log.Warn("iSCSI login refused", "device", c.device.String(), "initiator", c.login.Initiator, "target", c.login.Target,
		"reason", string(reason))
	d.event(c.device, "refused", string(reason)+": "+reason.Text())
	s := status(reason)
	if reason == site.NotALogin {
		s = c.status
	}
	d.answer(ctx, c.conn, c.login, s)
}

// answer ends a login with a status.
func (d *Director) answer(ctx context.Context, conn net.Conn, login iscsi.Login, s iscsi.Status) {
	d.say(ctx, conn, login.Request.Reject(s))
}

// say sends the last word of a login. It lets the initiator close first, for a moment, so that it is not lost in a reset.
func (d *Director) say(ctx context.Context, conn net.Conn, last iscsi.LoginResponse) {
	defer within(ctx, conn, time.Second)()
	if _, err := conn.Write(last.PDU().Append(nil)); err != nil {
		d.counts.drop(DropAnswer)
		return
	}
	if c, ok := conn.(*net.TCPConn); ok {
		c.CloseWrite()
	}
	io.CopyN(io.Discard, conn, maxEarly)
}

// discover answers a discovery session itself: the one target of this device, at the address that was asked. A probe, which asks
// whether the director works, finds none.
func (d *Director) discover(ctx context.Context, c *caller) {
	defer context.AfterFunc(ctx, func() { reset(c.conn) })()
	if site.IsProbe(c.login.Initiator) {
		d.list(c, nil)
		return
	}
	v := d.view()
	mac, err := site.ParseInitiatorName(c.login.Initiator)
	if err != nil {
		d.refuse(ctx, c, site.MalformedInitiator)
		return
	}
	c.device = mac
	a, reason := site.Assign(v, mac)
	if reason == site.UnknownDevice {
		d.refuse(ctx, c, reason)
		return
	}
	var targets []iscsi.Target
	if reason == site.Offered {
		name := site.NameTarget(v.Site, a.VDisk.Name, a.Version.Number, a.Version.Digest)
		targets = []iscsi.Target{{Name: name.IQN(), Addresses: []string{c.conn.LocalAddr().String() + ",1"}}}
	}
	d.counts.discoveries.Add(1)
	d.list(c, targets)
}

// list leads a discovery session that finds these targets.
func (d *Director) list(c *caller, targets []iscsi.Target) {
	c.conn.SetDeadline(time.Now().Add(d.cfg.LoginTimeout))
	s, err := iscsi.Accept(c.conn, c.login)
	if err == nil {
		err = s.ServeDiscovery(targets)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		d.counts.drop(DropDiscovery)
	}
}
