package streamer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
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

// login finds a session for who asks, or tells it why not.
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

// find looks for a streamer that takes the login, for as long as it may be held. An error means that the initiator is gone.
func (d *Director) find(ctx context.Context, c *caller) (*session, site.Reason, error) {
	held := false
	arrived := time.Now()
	deadline := arrived.Add(d.cfg.Hold)
	for {
		if !d.gate.enter(ctx, arrived, deadline) {
			return nil, site.TooManyLogins, nil
		}
		s, reason := d.try(ctx, c)
		d.gate.leave()
		if reason == site.Picked || !waits(d.view(), reason) {
			return s, reason, nil
		}
		if !held {
			held = true
			if d.counts.holding.Add(1) > int64(d.cfg.MaxLogins) {
				d.counts.holding.Add(-1)
				return nil, reason, nil
			}
			defer d.counts.holding.Add(-1)
			d.waiting.add(c.conn)
			defer d.waiting.remove(c.conn)
			d.log.Info("iSCSI login held", "device", c.device.String(), "target", c.login.Target, "reason", string(reason))
		}
		if err := c.wait(min(retryPause, time.Until(deadline))); err != nil {
			return nil, reason, err
		}
		if !time.Now().Before(deadline) || ctx.Err() != nil {
			return nil, reason, nil
		}
	}
}

// waits reports whether a reason may pass within the time that a login is held. A site of which nothing is known yet may still
// turn out to know the device; initiators take a refusal as final.
func waits(v *site.View, r site.Reason) bool {
	switch r {
	case site.NoReplica, site.DigestDiffers, site.NoHealthyStreamer, site.AllDraining, site.FixedServerDown,
		site.NoneInSubnet:
		return true
	case site.UnknownDevice:
		return len(v.Devices) == 0 && !v.Registry.Reachable
	}
	return false
}

// sleepers are the connections of held logins. A new view wakes them: it makes their reads time out.
type sleepers struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (s *sleepers) add(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = make(map[net.Conn]struct{})
	}
	s.conns[conn] = struct{}{}
}

// remove takes a connection out for good: it also undoes a wake-up that came while its login was with a streamer already, which
// would end the session at its first read.
func (s *sleepers) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	conn.SetReadDeadline(time.Time{})
}

func (s *sleepers) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// wait sleeps until the time is over or a new view wakes it, and notices meanwhile that the initiator hung up.
func (c *caller) wait(t time.Duration) error {
	c.conn.SetReadDeadline(time.Now().Add(t))
	defer c.conn.SetReadDeadline(time.Time{})
	buf := make([]byte, 4096)
	n, err := c.conn.Read(buf)
	c.sent = append(c.sent, buf[:n]...)
	switch {
	case len(c.sent) > iscsi.MaxLoginData+maxEarly:
		return errEarly
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return err
}

// try goes through the streamers once, the best first.
func (d *Director) try(ctx context.Context, c *caller) (*session, site.Reason) {
	var tried []string
	var refused iscsi.Status // by all that were tried
	for {
		v := d.view()
		l, reason := d.admit(v, c)
		if reason != site.Picked {
			return nil, reason
		}
		l.Tried = tried
		now := time.Now()
		st, reason := d.pool.pick(now, v, l)
		if reason != site.Picked {
			if refused != iscsi.StatusSuccess {
				c.status, reason = refused, site.NotALogin
			}
			return nil, reason
		}
		leg, answer, err := d.connect(ctx, v, st, l, c)
		if err != nil {
			s := d.giveBack(c, st.Name, err)
			if len(tried) > 0 && refused == iscsi.StatusSuccess {
				s = iscsi.StatusSuccess
			}
			refused = s
			tried = append(tried, st.Name)
			continue
		}
		if d.pool.succeeded(st.Name) {
			d.log.Info("streamer takes logins again", "streamer", st.Name)
		}
		l.Tried = nil
		s := &session{
			Session: Session{
				Device: l.MAC, VDisk: l.VDisk, Version: l.Version, Streamer: st.Name,
				Remote: c.conn.RemoteAddr().String(), Since: now,
			},
			login: l, isid: c.login.Request.ISID, target: c.login.Target, initiator: c.conn, leg: leg,
			portal: leg.RemoteAddr().String(),
		}
		c.conn.SetWriteDeadline(now.Add(d.cfg.LoginTimeout))
		_, err = c.conn.Write(answer)
		c.conn.SetWriteDeadline(time.Time{})
		if err != nil { // splicing will see it too
			d.counts.drop(DropAnswer)
		}
		return s, site.Picked
	}
}

// giveBack ends a pick whose streamer did not take the login. If the login is to blame (Status-Class 2), it returns what that one
// answered, and the streamer goes on for all others: one bad initiator must not keep them out. That the target is not there is
// the streamer's fault: admit and pick have looked.
func (d *Director) giveBack(c *caller, name string, err error) iscsi.Status {
	var answer *iscsi.LoginError
	blamed := errors.As(err, &answer) && answer.Status.Class() == 2 && answer.Status != iscsi.StatusNotFound
	if !blamed && !errors.Is(err, errGoOn) {
		if d.pool.failed(name, time.Now()) {
			d.log.Warn("streamer does not take logins", "streamer", name, "device", c.device.String(), "error", err)
		}
		return iscsi.StatusSuccess
	}
	d.pool.spared(name)
	if !c.told {
		c.told = true
		d.log.Warn("streamer does not take this login", "streamer", name, "device", c.device.String(), "error", err)
	}
	if !blamed {
		return iscsi.StatusSuccess
	}
	return answer.Status
}

// admit decides whether a login is allowed.
func (d *Director) admit(v *site.View, c *caller) (site.Login, site.Reason) {
	q := site.Asking{Initiator: c.login.Initiator, Target: c.login.Target}
	switch from := remote(c.conn); {
	case v.Devices[c.device].Address == from: // its reservation: no need to look for who has it
		q.Holder = c.device
	case d.cfg.Who != nil:
		q.Holder = d.cfg.Who(from)
	}
	runs, at := d.table.running(c.device)
	q.Runs, q.Moved = runs, at.IsValid() && at != remote(c.conn)
	l, reason := site.Admit(v, q)
	l.From = remote(c.conn)
	return l, reason
}

// connect passes a login on to a streamer and returns its first answer. A streamer that takes the connection but
// does not answer, or refuses the login, counts as one that is not there, but see giveBack.
func (d *Director) connect(ctx context.Context, v *site.View, st site.Streamer, l site.Login, c *caller) (net.Conn, []byte, error) {
	failures := errors.New("no portal of it answers")
	for _, address := range d.pool.portals(v, st, l) {
		leg, err := d.dial(ctx, address.String())
		if err != nil {
			failures = errors.Join(failures, err)
			continue
		}
		answer, err := ask(leg, c, d.cfg.DialTimeout)
		if err != nil {
			leg.Close()
			failures = errors.Join(failures, err)
			continue
		}
		tuneLeg(leg)
		return leg, answer, nil
	}
	return nil, nil, failures
}

func (d *Director) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, min(connectTimeout, d.cfg.DialTimeout))
	defer cancel()
	return d.cfg.Dial(ctx, "tcp", address)
}

func ask(leg net.Conn, c *caller, patience time.Duration) ([]byte, error) {
	leg.SetDeadline(time.Now().Add(patience))
	if _, err := leg.Write(c.sent); err != nil {
		return nil, fmt.Errorf("passing a login on: %w", err)
	}
	p, err := iscsi.ReadPDU(leg, iscsi.MaxLoginData)
	if err != nil {
		return nil, fmt.Errorf("waiting for the streamer's answer: %w", err)
	}
	answer, err := iscsi.ParseLoginResponse(p)
	if err != nil {
		return nil, err
	}
	if answer.Status != iscsi.StatusSuccess {
		return nil, &iscsi.LoginError{Status: answer.Status}
	}
	leg.SetDeadline(time.Time{})
	if c.proof == nil {
		return p.Append(nil), nil
	}
	return c.proof.goOn(answer)
}

// forward splices a session until it ends.
func (d *Director) forward(ctx context.Context, s *session) {
	d.pool.use(s.portal, 1)
	s.ended = func(cause string) {
		now := time.Now()
		if cause == endSilent {
			d.pool.hush(s.portal, now.Add(hushTime))
		}
		d.table.remove(s, cause, now)
		d.pool.use(s.portal, -1)
		d.pool.leave(s.Streamer)
	}
	before, failover := d.table.add(s)
	d.cfg.Tell(encodeRuns([]run{{s.Device, s.target, s.Streamer, s.Since, s.Failovers, s.login.From}}))
	d.counts.login(site.Picked)
	what, detail := "login", fmt.Sprintf("%s version %d from %s", s.VDisk, s.Version, s.Streamer)
	if failover {
		d.counts.failovers.Add(1)
		what = "failover"
		detail = fmt.Sprintf("%s version %d from %s to %s %s", s.VDisk, s.Version, before.Streamer, s.Streamer, before.after(s.Since))
	}
	d.log.Info("iSCSI "+what, "device", s.Device.String(), "streamer", s.Streamer, "detail", detail)
	d.event(s.Device, what, detail)
	stop := context.AfterFunc(ctx, func() { s.end(endStop, true) })
	defer stop()
	cause := s.run()
	d.counts.bytesIn.Add(s.in)
	d.counts.bytesOut.Add(s.out)
	d.log.Info("iSCSI session closed", "device", s.Device.String(), "streamer", s.Streamer, "why", cause, "bytes", s.out)
	d.event(s.Device, "closed", fmt.Sprintf("%s: %s", s.Streamer, cause))
}

// after says how long a device was away, and why.
func (r record) after(now time.Time) string {
	if r.peer {
		return "after its appliance stopped"
	}
	return fmt.Sprintf("after %s: %s", now.Sub(r.lost).Round(time.Millisecond), r.why)
}

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

// answer ends a login with a status. It lets the initiator close first, for a moment, so that the answer is not lost in a reset.
func (d *Director) answer(ctx context.Context, conn net.Conn, login iscsi.Login, s iscsi.Status) {
	defer within(ctx, conn, time.Second)()
	if _, err := conn.Write(login.Request.Reject(s).PDU().Append(nil)); err != nil {
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
