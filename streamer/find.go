package streamer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

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
		replica, _ := st.Replica(l)
		served := replica.IQN(v.Site)
		leg, answer, err := d.connect(ctx, v, st, l, c, served)
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
			login: l, isid: c.login.Request.ISID, target: c.login.Target, served: served, portal: leg.RemoteAddr().String(),
		}
		if served == c.login.Target && d.redirects(c, now) { // under another name it would not be found there
			leg.Close()
			d.pool.leave(st.Name)
			c.moved = s
			return nil, site.Picked
		}
		d.pass(c, answer)
		s.initiator, s.leg = c.conn, leg
		return s, site.Picked
	}
}

// pass gives the initiator its streamer's first answer. If that fails splicing will see it too.
func (d *Director) pass(c *caller, answer []byte) {
	c.conn.SetWriteDeadline(time.Now().Add(d.cfg.LoginTimeout))
	_, err := c.conn.Write(answer)
	c.conn.SetWriteDeadline(time.Time{})
	if err != nil {
		d.counts.drop(DropAnswer)
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
func (d *Director) connect(ctx context.Context, v *site.View, st site.Streamer, l site.Login, c *caller, served string) (net.Conn, []byte, error) {
	sent := c.sent
	if served != c.login.Target {
		var err error
		if sent, err = rename(sent, served); err != nil {
			return nil, nil, err
		}
	}
	failures := errors.New("no portal of it answers")
	for _, address := range d.pool.portals(v, st, l) {
		leg, err := d.dial(ctx, address.String())
		if err != nil {
			failures = errors.Join(failures, err)
			continue
		}
		answer, err := ask(leg, sent, c.proof, d.cfg.DialTimeout)
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

// rename gives a login another TargetName, for a streamer that has one of its own. Only the first PDU names it (RFC 7143 §13.4).
func rename(sent []byte, name string) ([]byte, error) {
	rest := bytes.NewReader(sent)
	p, err := iscsi.ReadPDU(rest, iscsi.MaxLoginData)
	if err != nil {
		return nil, err
	}
	pairs := bytes.Split(p.Data, []byte{0})
	for i, pair := range pairs {
		if bytes.HasPrefix(pair, []byte("TargetName=")) {
			pairs[i] = []byte("TargetName=" + name)
		}
	}
	p.Data = bytes.Join(pairs, []byte{0})
	return append(p.Append(nil), sent[len(sent)-rest.Len():]...), nil
}

// ask passes a login on, and returns the streamer's answer.
func ask(leg net.Conn, sent []byte, proof *proof, patience time.Duration) ([]byte, error) {
	leg.SetDeadline(time.Now().Add(patience))
	if _, err := leg.Write(sent); err != nil {
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
	if proof == nil {
		return p.Append(nil), nil
	}
	return proof.goOn(answer)
}
