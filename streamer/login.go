package streamer

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

// maxEarly is how much an initiator may send beyond its first PDU while it is held: nothing is usual.
const maxEarly = 64 << 10

// errEarly says that an initiator sent more than that.
var errEarly = errors.New("the initiator sends without waiting for an answer")

// caller is an initiator whose login is being decided.
type caller struct {
	conn   net.Conn
	login  iscsi.Login
	sent   []byte // what it sent so far, to be passed on
	device site.MAC
	proof  *proof       // after CHAP
	moved  *session     // where it is redirected to
	told   bool         // the log knows that a streamer refused it
	status iscsi.Status // with NotALogin
}

// serve leads one connection from its first PDU to its end. A login ends with ctx, a session with life; decided is called when the
// one is the other, or has been answered.
func (d *Director) serve(ctx, life context.Context, g *guest, decided func()) {
	conn := g.conn
	defer d.cfg.Opened(conn)()
	defer hangUp(conn)
	defer decided()
	c, drop := d.read(ctx, conn)
	var err error
	if drop == "" && ctx.Err() == nil {
		if c.login.Discovery {
			d.discover(ctx, c)
		} else if err = d.identify(ctx, c); err != nil && !errors.Is(err, errCHAP) && ctx.Err() == nil {
			drop = dropOf(err)
		}
	}
	if d.lobby.leave(g) {
		drop = DropTooMany
	}
	switch {
	case drop != "":
		d.counts.drop(drop)
		d.log.Debug("iSCSI connection dropped", "remote", conn.RemoteAddr().String(), "why", string(drop))
	case ctx.Err() != nil:
		d.counts.drop(DropStop)
		d.answer(ctx, conn, c.login, iscsi.StatusUnavailable)
	case err != nil:
		d.log.Warn("iSCSI login without proof", "device", c.device.String(), "remote", conn.RemoteAddr().String(), "error", err)
		d.refuse(ctx, c, site.NotAuthenticated)
	case !c.login.Discovery:
		if s := d.login(ctx, c); s != nil {
			decided()
			d.forward(life, s)
		}
	}
}

// identify finds out which device asks, and has it prove that. Until then it counts as one that has not said who it is, and not
// among the logins of the device that it names.
func (d *Director) identify(ctx context.Context, c *caller) error {
	if mac, err := site.ParseInitiatorName(c.login.Initiator); err == nil {
		c.device = mac
	}
	want, ok := d.cfg.CHAP(c.device)
	if !ok {
		return nil
	}
	return d.authenticate(ctx, c, want)
}

// login finds a session for who asks, or tells it where there is one, or why there is none.
func (d *Director) login(ctx context.Context, c *caller) *session {
	v := d.view()
	if _, reason := d.admit(v, c); reason != site.Picked && !waits(v, reason) {
		d.refuse(ctx, c, reason)
		return nil
	}
	if !d.gate.register(c.device) {
		d.counts.drop(DropTooMany)
		d.answer(ctx, c.conn, c.login, iscsi.StatusUnavailable)
		return nil
	}
	s, reason, err := d.find(ctx, c)
	d.gate.unregister(c.device)
	switch {
	case err != nil:
		d.counts.drop(dropOf(err))
	case reason != site.Picked:
		d.refuse(ctx, c, reason)
	case c.moved != nil:
		d.redirect(ctx, c)
	}
	return s
}

// lastWords is how long an initiator that has connected may take to say who it is when the director stops, and to close after it
// was told to come back.
const lastWords = 100 * time.Millisecond

// within bounds what a connection reads and writes by a time, and by lastWords from the end of ctx on. The returned function lifts the bound.
func within(ctx context.Context, conn net.Conn, t time.Duration) (lift func()) {
	conn.SetDeadline(time.Now().Add(t))
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now().Add(lastWords)) })
	return func() {
		if stop() {
			conn.SetDeadline(time.Time{})
		}
	}
}

// read takes the first login PDU. Nothing is believed of it: it is bounded in size and time, and must name who asks for what.
func (d *Director) read(ctx context.Context, conn net.Conn) (*caller, Drop) {
	defer within(ctx, conn, d.cfg.LoginTimeout)()
	p, err := iscsi.ReadPDU(conn, iscsi.MaxLoginData)
	if err != nil {
		return nil, dropOf(err)
	}
	login, err := iscsi.ParseLogin(p)
	switch {
	case errors.Is(err, iscsi.ErrMissingName):
		d.answer(ctx, conn, login, iscsi.StatusMissingParameter)
		return nil, DropMalformed
	case err != nil:
		return nil, DropMalformed
	case login.Request.VersionMin > 0: // the one version there is (RFC 7143 §11.12.4)
		d.answer(ctx, conn, login, iscsi.StatusVersion)
		return nil, DropMalformed
	}
	tuneInitiator(conn)
	return &caller{conn: conn, login: login, sent: p.Append(nil)}, ""
}

func dropOf(err error) Drop {
	switch {
	case errors.Is(err, iscsi.ErrTooLong), errors.Is(err, iscsi.ErrAHS), errors.Is(err, errEarly):
		return DropOversized
	case errors.Is(err, os.ErrDeadlineExceeded):
		return DropSlow
	}
	return DropHungUp
}
