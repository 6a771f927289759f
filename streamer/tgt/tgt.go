// Package tgt serves replicas with tgtd, the user-space target of the Linux SCSI target framework (Debian's package tgt).
//
// tgtd runs as a child that dies with us, with a control socket of its own, so that another tgtd on the host is not touched.
// It opens its port before anything is configured; so it is started on a loopback port that the kernel chooses, which is then
// closed, and its real portals are added when all targets stand. A target is bound to initiators as its last step, for the
// same reason.
//
// Every initiator may log in, because who may have which vDisk is decided by the director. Keep the streamers' network apart from
// that of others.
package tgt

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"everboot/site"
	"everboot/streamer"
)

// Config is the settings of an Engine.
type Config struct {
	// Addresses are the portals, one a NIC.
	Addresses []netip.AddrPort
	// State is a folder for the control socket.
	State string
	// Threads that read each vDisk: 4 if zero. tgtd's own default of 16 makes thousands of them in a big store.
	Threads int
}

const defaultThreads = 4

// maxSocket is the longest path of a Unix socket, less what tgtd appends to it (unix(7): 108 bytes with the zero).
const maxSocket = 107 - len(".0.lock")

// Validate returns an error that says which setting is wrong.
func (c Config) Validate() error {
	if len(c.Addresses) == 0 {
		return errors.New("iscsi: no addresses; name one a NIC, such as 198.18.0.21:3260")
	}
	for _, a := range c.Addresses {
		if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() {
			return fmt.Errorf("iscsi address %s: use an address of this host and a port, such as 198.18.0.21:3260", a)
		}
	}
	if c.State == "" {
		return errors.New("state: no folder")
	}
	if n := len(c.socket()); n > maxSocket {
		return fmt.Errorf("state folder %s: its path is %d bytes too long for a socket in it", c.State, n-maxSocket)
	}
	if c.Threads < 0 {
		return fmt.Errorf("iscsi threads %d: use 1 or more", c.Threads)
	}
	return nil
}

func (c Config) socket() string { return filepath.Join(c.State, "tgt", "socket") }

// Engine is a streamer.Engine on tgtd.
type Engine struct {
	cfg Config
	log *slog.Logger
	run func(ctx context.Context, args ...string) (string, error) // tgtadm

	mu      sync.Mutex
	exports map[int]streamer.Export // by tid
}

var _ streamer.Engine = (*Engine)(nil)

// New returns an engine that runs nothing yet.
func New(cfg Config, log *slog.Logger) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Threads == 0 {
		cfg.Threads = defaultThreads
	}
	e := &Engine{cfg: cfg, log: log}
	e.run = e.tgtadm
	return e, nil
}

// startTimeout is how long tgtd may take to open its control socket; it takes a few milliseconds.
const startTimeout = 10 * time.Second

// Start implements streamer.Engine.
func (e *Engine) Start(ctx context.Context, exports []streamer.Export) (<-chan error, error) {
	ctx, cancel := context.WithCancel(ctx)
	child, err := e.spawn(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	if err := e.configure(ctx, child, exports); err != nil {
		cancel()
		<-child.done
		return nil, fmt.Errorf("%w; tgtd said: %q", err, child.lastWords())
	}
	done := make(chan error, 1)
	go func() {
		defer cancel()
		done <- <-child.done
	}()
	return done, nil
}

// configure makes targets first and portals last.
func (e *Engine) configure(ctx context.Context, child *child, exports []streamer.Export) error {
	if err := e.await(ctx, child); err != nil {
		return err
	}
	out, err := e.run(ctx, "--mode", "portal", "--op", "show")
	if err != nil {
		return fmt.Errorf("listing tgtd's portals: %w", err)
	}
	for _, p := range parsePortals(out) {
		if _, err := e.run(ctx, "--mode", "portal", "--op", "delete", "--param", "portal="+p); err != nil {
			return fmt.Errorf("closing tgtd's portal %s: %w", p, err)
		}
	}
	e.mu.Lock()
	e.exports = make(map[int]streamer.Export)
	e.mu.Unlock()
	if err := e.Export(ctx, exports); err != nil {
		return err
	}
	for _, a := range e.cfg.Addresses {
		if _, err := e.run(ctx, "--mode", "portal", "--op", "new", "--param", "portal="+a.String()); err != nil {
			return fmt.Errorf("opening the iSCSI portal %s (is it an address of this host, and the port free?): %w", a, err)
		}
	}
	return nil
}

// await waits for the control socket.
func (e *Engine) await(ctx context.Context, child *child) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		_, err := e.run(ctx, "--mode", "sys", "--op", "show")
		if err == nil {
			return nil
		}
		select {
		case <-child.ended:
			return errors.New("tgtd ended at once")
		case <-ctx.Done():
			return fmt.Errorf("waiting for tgtd's control socket %s: %w", e.cfg.socket(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// identity is everything that an initiator sees of a vDisk version. It follows from the target name alone.
type identity struct {
	tid     int    // tgt builds one of the identifiers of VPD page 0x83 from it
	serial  string // 16 hexadecimal digits, also in the NAA identifier of page 0x83
	id      string // T10 identifier of page 0x83
	product string // 16 characters
	rev     string // 4 characters
}

func identify(t site.TargetName) identity {
	sum := sha256.Sum256([]byte(t.IQN()))
	return identity{
		// 28 bits: tgt puts a nibble of its own in front. Never zero.
		tid:     int(binary.BigEndian.Uint32(sum[8:])>>4) | 1,
		serial:  hex.EncodeToString(sum[:8]),
		id:      "everboot-" + t.Digest,
		product: t.VDisk[:min(16, len(t.VDisk))],
		rev:     fmt.Sprintf("%04d", t.Version%10000),
	}
}

// Export implements streamer.Engine. What can be served is served also when something else cannot.
func (e *Engine) Export(ctx context.Context, exports []streamer.Export) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	want := make(map[int]streamer.Export, len(exports))
	var failures error
	for _, x := range exports {
		tid := identify(x.Target).tid
		if other, ok := want[tid]; ok && other != x {
			failures = errors.Join(failures, fmt.Errorf("serving %s: its number is that of %s; rename one of the two",
				x.Target.IQN(), other.Target.IQN()))
			continue
		}
		want[tid] = x
	}
	for tid, x := range e.exports {
		if want[tid] == x {
			continue
		}
		if err := e.remove(ctx, tid); err != nil {
			failures = errors.Join(failures, fmt.Errorf("withdrawing %s: %w", x.Target.IQN(), err))
			continue
		}
		delete(e.exports, tid)
	}
	for tid, x := range want {
		if _, ok := e.exports[tid]; ok {
			continue
		}
		if err := e.add(ctx, x); err != nil {
			failures = errors.Join(failures, fmt.Errorf("serving %s: %w", x.Path, err))
			continue
		}
		e.exports[tid] = x
	}
	return failures
}

// settings are what initiators negotiate with. Everything else is tgt's default.
var settings = []struct{ name, value string }{
	{"DefaultTime2Wait", "0"},              // an initiator that lost its streamer need not wait before it logs in again
	{"MaxXmitDataSegmentLength", "262144"}, // big reads in few PDUs
	{"nop_interval", "0"},                  // no pings: not every firmware answers them; the director's keepalive does this work
}

// add makes one target. Nobody can log in before its last step.
func (e *Engine) add(ctx context.Context, x streamer.Export) (err error) {
	if strings.ContainsAny(x.Path, ",\n") {
		return errors.New("tgt cannot have a comma in a path; move the store")
	}
	id := identify(x.Target)
	tid := strconv.Itoa(id.tid)
	defer func() {
		if err != nil {
			e.run(ctx, "--lld", "iscsi", "--mode", "target", "--op", "delete", "--force", "--tid", tid)
		}
	}()
	steps := [][]string{
		{"--mode", "target", "--op", "new", "--tid", tid, "--targetname", x.Target.IQN()},
		{"--mode", "logicalunit", "--op", "new", "--tid", tid, "--lun", "1", "--bstype", "rdwr", "--backing-store", x.Path},
		{"--mode", "logicalunit", "--op", "update", "--tid", tid, "--lun", "1", "--params", "readonly=1,vendor_id=EVERBOOT,scsi_sn=" +
			id.serial + ",scsi_id=" + id.id + ",product_id=" + id.product + ",product_rev=" + id.rev},
	}
	for _, s := range settings {
		steps = append(steps, []string{"--mode", "target", "--op", "update", "--tid", tid, "--name", s.name, "--value", s.value})
	}
	steps = append(steps, []string{"--mode", "target", "--op", "bind", "--tid", tid, "--initiator-address", "ALL"})
	for _, args := range steps {
		if _, err := e.run(ctx, append([]string{"--lld", "iscsi"}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

// removeTimeout bounds how long commands under way may keep a target alive.
const removeTimeout = 5 * time.Second

// remove lets nobody in any more, ends the sessions and takes the target away.
func (e *Engine) remove(ctx context.Context, tid int) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	number := strconv.Itoa(tid)
	// It fails if an earlier try came this far.
	e.run(ctx, "--lld", "iscsi", "--mode", "target", "--op", "unbind", "--tid", number, "--initiator-address", "ALL")
	for {
		sessions, err := e.Sessions(ctx)
		if err != nil {
			return err
		}
		for _, s := range sessions {
			if identifier(s.Target) == tid {
				e.disconnect(ctx, tid, s)
			}
		}
		_, err = e.run(ctx, "--lld", "iscsi", "--mode", "target", "--op", "delete", "--force", "--tid", number)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// identifier returns the tid of one of our targets, or 0.
func identifier(iqn string) int {
	t, err := site.ParseTargetName(iqn)
	if err != nil {
		return 0
	}
	return identify(t).tid
}

// Sessions implements streamer.Engine.
func (e *Engine) Sessions(ctx context.Context) ([]streamer.EngineSession, error) {
	out, err := e.run(ctx, "--lld", "iscsi", "--mode", "target", "--op", "show")
	if err != nil {
		return nil, fmt.Errorf("listing tgtd's sessions: %w", err)
	}
	return parseSessions(out), nil
}

// Disconnect implements streamer.Engine.
func (e *Engine) Disconnect(ctx context.Context, s streamer.EngineSession) error {
	tid := identifier(s.Target)
	if tid == 0 {
		return fmt.Errorf("ending a session of %s: not a target of ours", s.Target)
	}
	return e.disconnect(ctx, tid, s)
}

func (e *Engine) disconnect(ctx context.Context, tid int, s streamer.EngineSession) error {
	_, err := e.run(ctx, "--lld", "iscsi", "--mode", "conn", "--op", "delete", "--tid", strconv.Itoa(tid),
		"--sid", strconv.Itoa(s.Session), "--cid", strconv.Itoa(s.Connection))
	if err != nil && strings.Contains(err.Error(), "can't find the session") {
		return nil
	}
	return err
}
