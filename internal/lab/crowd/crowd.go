// Package crowd is many targets at once: initiators that read blocks at random, check what they read, and log in again whenever they must.
package crowd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

const block = 512

// Config says what the targets do.
type Config struct {
	Targets int
	Portal  string // of the director
	IQN     string // of the vDisk
	Content []byte // what the vDisk holds
	// MAC returns the address of target i.
	MAC  func(i int) site.MAC
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Pause is the time between two reads of a target.
	Pause time.Duration
}

// Crowd is the targets at work.
type Crowd struct {
	cfg     Config
	reads   []atomic.Int64 // good ones, by target
	logins  atomic.Int64
	stall   atomic.Int64 // the longest time without a read that came over a new login, in nanoseconds
	failure atomic.Pointer[error]
	cancel  context.CancelFunc
	all     sync.WaitGroup
}

// Start lets the targets log in and read until Stop.
func Start(ctx context.Context, cfg Config) *Crowd {
	ctx, cancel := context.WithCancel(ctx)
	c := &Crowd{cfg: cfg, reads: make([]atomic.Int64, cfg.Targets), cancel: cancel}
	for i := range cfg.Targets {
		c.all.Go(func() { c.run(ctx, i) })
	}
	return c
}

// Stop ends all sessions. It returns the first thing that should not have been: a refused login, or wrong content.
func (c *Crowd) Stop() error {
	c.cancel()
	c.all.Wait()
	return c.Err()
}

// Err returns the first thing that should not have been.
func (c *Crowd) Err() error {
	if err := c.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (c *Crowd) fail(err error) { c.failure.CompareAndSwap(nil, &err) }

// Mark is the reads of each target so far.
func (c *Crowd) Mark() []int64 {
	mark := make([]int64, len(c.reads))
	for i := range c.reads {
		mark[i] = c.reads[i].Load()
	}
	return mark
}

// Since reports how many targets have read again since the mark.
func (c *Crowd) Since(mark []int64) (n int) {
	for i := range c.reads {
		if c.reads[i].Load() > mark[i] {
			n++
		}
	}
	return n
}

// Reads returns the good reads of all.
func (c *Crowd) Reads() (sum int64) {
	for i := range c.reads {
		sum += c.reads[i].Load()
	}
	return sum
}

// Logins returns how many logins succeeded.
func (c *Crowd) Logins() int64 { return c.logins.Load() }

// Stall returns the longest time between two reads of one target with a login between them, and forgets it.
func (c *Crowd) Stall() time.Duration { return time.Duration(c.stall.Swap(0)) }

func (c *Crowd) run(ctx context.Context, i int) {
	var session *iscsi.Session
	defer func() {
		if session != nil {
			session.Close()
		}
	}()
	last := time.Now()
	for ctx.Err() == nil {
		fresh := session == nil
		if fresh {
			if session = c.login(ctx, i); session == nil {
				continue
			}
		}
		if !c.read(ctx, i, session) {
			session.Close()
			session = nil
			continue
		}
		if stall := int64(time.Since(last)); fresh && c.reads[i].Load() > 1 {
			for old := c.stall.Load(); stall > old && !c.stall.CompareAndSwap(old, stall); old = c.stall.Load() {
			}
		}
		last = time.Now()
		select {
		case <-ctx.Done():
		case <-time.After(c.cfg.Pause):
		}
	}
}

// login returns nil if it must be tried again.
func (c *Crowd) login(ctx context.Context, i int) *iscsi.Session {
	s, err := iscsi.Dial(ctx, c.cfg.Portal, iscsi.Config{
		InitiatorName: site.InitiatorName(c.cfg.MAC(i)), TargetName: c.cfg.IQN, ISID: [6]byte{0x00, 0x02, 0x3d, 1}, Dial: c.cfg.Dial,
	})
	var refused *iscsi.LoginError
	switch {
	case err == nil:
		c.logins.Add(1)
		return s
	case errors.As(err, &refused):
		c.fail(fmt.Errorf("target %d: %w", i, err))
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Millisecond): // open-iscsi is back within milliseconds too
	}
	return nil
}

func (c *Crowd) read(ctx context.Context, i int, s *iscsi.Session) bool {
	const n = 8
	lba := rand.Uint64N(uint64(len(c.cfg.Content)/block) - n)
	b, err := s.ReadBlocks(ctx, lba, n)
	if err != nil {
		return false
	}
	if !bytes.Equal(b, c.cfg.Content[lba*block:lba*block+n*block]) {
		c.fail(fmt.Errorf("target %d: wrong content at block %d", i, lba))
	}
	c.reads[i].Add(1)
	return true
}
