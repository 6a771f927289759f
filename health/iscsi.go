package health

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"sync"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

// InitiatorName returns the InitiatorName that the probes of a node log in with. Who counts a streamer's sessions (tgtd lists
// initiators by name) leaves these out: they are no targets.
func InitiatorName(node string) string { return site.ProbeName(node) }

// rotateAfter probes the session moves on to the streamer's next target, so that each is tried now and then without a login a probe.
const rotateAfter = 16

// blockSize is what our own streamers' disks have.
const blockSize = 512

// ISCSIConfig says which streamer to probe.
type ISCSIConfig struct {
	Node string // ours, for the InitiatorName
	// Addresses of the streamer's portals. One that answers is enough; the one that answered last is asked first.
	Addresses []netip.AddrPort
	// Targets are the IQNs that it exports. One that can be read is enough: a single replica that is missing for a moment must not cut
	// off the targets of all others. Broken tells of it. Without any, a discovery session stands for a streamer that is alive.
	Targets []string
	// Foreign are those of them that no agent of ours serves, with the size that they must have; 0: nobody knows. That such a one takes writes, or
	// has another size, is a failure of the streamer: it would not be what its operator said.
	Foreign map[string]int64
	Dial    Dial // nil: a net.Dialer
}

// ISCSI probes a streamer: it logs in and reads block 0 of a replica, and keeps the session for the next probe. Use its Probe, Watch and
// Close in a Check.
type ISCSI struct {
	cfg ISCSIConfig

	mu      sync.Mutex
	session *iscsi.Session
	conn    net.Conn
	address int // index of the portal that answered last
	target  int // index of the target that the session is with
	uses    int // probes with this session
	broken  map[string]string
	seen    map[string]bool // foreign targets that were looked at
}

// NewISCSI returns a prober without a session.
func NewISCSI(cfg ISCSIConfig) *ISCSI {
	return &ISCSI{cfg: cfg, broken: make(map[string]string), seen: make(map[string]bool)}
}

// Broken returns the targets that could not be read when they were tried last, and why, although the streamer works.
func (p *ISCSI) Broken() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	broken := make(map[string]string, len(p.broken))
	for iqn, why := range p.broken {
		broken[iqn] = why
	}
	return broken
}

// Probe reads block 0, logging in first if there is no session. A session that was kept and is found dead is a failure, as it is for a target.
func (p *ISCSI) Probe(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != nil && p.uses >= rotateAfter && len(p.cfg.Targets) > 1 {
		p.leave(ctx)
		p.target++
	}
	if err := p.lookAtAll(ctx); err != nil {
		return err
	}
	var last error
	for range max(1, len(p.cfg.Targets)) {
		err := p.read(ctx)
		name := p.name()
		if err == nil {
			delete(p.broken, name)
			return nil
		}
		p.drop()
		if !refused(err) {
			return err
		}
		p.broken[name] = brief(err)
		last = err
		p.target++
	}
	return last
}

// lookAtAll logs in to the foreign targets that nobody has looked at yet: no target may be led to one before.
func (p *ISCSI) lookAtAll(ctx context.Context) error {
	if len(p.seen) == len(p.cfg.Foreign) {
		return nil
	}
	session, conn, uses, target := p.session, p.conn, p.uses, p.target
	defer func() { p.session, p.conn, p.uses, p.target = session, conn, uses, target }()
	for i, name := range p.cfg.Targets {
		if _, foreign := p.cfg.Foreign[name]; !foreign || p.seen[name] {
			continue
		}
		p.session, p.conn, p.target = nil, nil, i
		err := p.login(ctx)
		switch {
		case err == nil:
			p.leave(ctx)
		case refused(err): // it refuses everybody, then
			p.broken[name] = brief(err)
		default:
			return err
		}
	}
	return nil
}

// inspect looks whether a foreign target is what it must be.
func (p *ISCSI) inspect(ctx context.Context) error {
	size, foreign := p.cfg.Foreign[p.name()]
	if !foreign {
		return nil
	}
	readOnly, err := p.session.ReadOnly(ctx)
	var capacity iscsi.Capacity
	if err == nil {
		capacity, err = p.session.ReadCapacity(ctx)
	}
	switch {
	case refused(err): // who does not say what it has is not trusted, so this is no refusal of this one alone
		return fmt.Errorf("%s does not say what it is: %v", p.name(), err)
	case err != nil:
		return err
	case !readOnly:
		return fmt.Errorf("%s can be written to; make its LUN 1 read-only", p.name())
	case capacity.BlockSize != blockSize:
		return fmt.Errorf("%s has blocks of %d bytes; it must have blocks of %d", p.name(), capacity.BlockSize, blockSize)
	case size != 0 && capacity.Bytes() != size:
		return fmt.Errorf("%s has %d bytes, and the replicas of our streamers %d: it is another disk", p.name(), capacity.Bytes(), size)
	}
	p.seen[p.name()] = true
	return nil
}

// refused reports whether a streamer that lives said no to one target.
func refused(err error) bool {
	var login *iscsi.LoginError
	var scsi *iscsi.SCSIError
	return errors.As(err, &login) || errors.As(err, &scsi)
}

func (p *ISCSI) name() string {
	if len(p.cfg.Targets) == 0 {
		return ""
	}
	return p.cfg.Targets[p.target%len(p.cfg.Targets)]
}

func (p *ISCSI) read(ctx context.Context) error {
	if p.session == nil {
		if err := p.login(ctx); err != nil {
			return err
		}
	}
	p.uses++
	if p.name() == "" {
		_, err := p.session.SendTargets(ctx)
		return err
	}
	_, err := p.session.ReadBlocks(ctx, 0, 1)
	return err
}

// login tries the portals in turn, each with its share of the time.
func (p *ISCSI) login(ctx context.Context) error {
	n := len(p.cfg.Addresses)
	err := errors.New("the streamer has no address")
	for i := range n {
		at := (p.address + i) % n
		if err = p.loginAt(ctx, p.cfg.Addresses[at], n-i); err == nil || refused(err) {
			p.address = at
			return err
		}
	}
	return err
}

func (p *ISCSI) loginAt(ctx context.Context, address netip.AddrPort, shares int) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(shares))
		defer cancel()
	}
	var conn net.Conn
	session, err := iscsi.Dial(ctx, address.String(), iscsi.Config{
		InitiatorName: InitiatorName(p.cfg.Node), TargetName: p.name(), ISID: isid(address),
		Dial: func(ctx context.Context, network, to string) (c net.Conn, err error) {
			conn, err = p.dial(ctx, network, to)
			return conn, err
		},
	})
	if err != nil {
		return err
	}
	p.session, p.conn, p.uses = session, conn, 0
	err = p.inspect(ctx)
	if err != nil {
		p.drop()
	}
	return err
}

func (p *ISCSI) dial(ctx context.Context, network, to string) (net.Conn, error) {
	if p.cfg.Dial != nil {
		return p.cfg.Dial(ctx, network, to)
	}
	return (&net.Dialer{}).DialContext(ctx, network, to)
}

// isid is of the "random" format (RFC 7143 §11.12.5), and differs between portals: a second session with the same ISID, initiator and
// target would end the first.
func isid(a netip.AddrPort) [6]byte {
	h := fnv.New32a()
	h.Write([]byte(a.String()))
	n := h.Sum32()
	return [6]byte{0x80, 0xeb, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// Watch waits on the idle session and returns an error as soon as its connection ends: a SIGKILLed tgtd is noticed by the kernel's FIN or
// RST within milliseconds, not at the next probe. A host that falls silent is noticed by the next probe only.
func (p *ISCSI) Watch(ctx context.Context) error {
	p.mu.Lock()
	conn := p.conn
	p.mu.Unlock()
	if conn == nil {
		return nil
	}
	err := awaitEnd(ctx, conn)
	if err == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == conn {
		p.drop()
	}
	return fmt.Errorf("the session ended: %w", err)
}

// Close ends the session.
func (p *ISCSI) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}

// leave ends the session in order, so that the streamer does not log a lost one.
func (p *ISCSI) leave(ctx context.Context) {
	_ = p.session.Logout(ctx) // the connection is closed in any case; whether the streamer works the next login tells
	p.session, p.conn = nil, nil
}

func (p *ISCSI) drop() {
	if p.session != nil {
		_ = p.session.Close() // it is dead or no longer wanted
	}
	p.session, p.conn = nil, nil
}
