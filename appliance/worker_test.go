package appliance

import (
	"context"
	"testing"
	"testing/synctest"
)

// fakeTask is ready when it is told to be.
type fakeTask struct {
	ready   chan struct{}
	running chan struct{}
}

func newFakeTask() fakeTask {
	return fakeTask{ready: make(chan struct{}), running: make(chan struct{})}
}

func (f fakeTask) Ready() <-chan struct{} { return f.ready }

func (f fakeTask) Run(ctx context.Context) error {
	close(f.running)
	<-ctx.Done()
	return nil
}

// TestProbesStartWhenWhatTheyAskServes: otherwise the first of them fails, and the node begins its life in the election as a sick one.
func TestProbesStartWhenWhatTheyAskServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, probes := newFakeTask(), newFakeTask(), newFakeTask()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- late{task: probes, after: []task{first, second}}.Run(ctx) }()
		close(first.ready)
		synctest.Wait()
		select {
		case <-probes.running:
			t.Error("the probes run before the second task serves")
		default:
		}
		close(second.ready)
		<-probes.running
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// TestLateTaskEndsWithTheOthers: a task that never serves, because its port is taken, must not keep the worker from ending.
func TestLateTaskEndsWithTheOthers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (late{task: newFakeTask(), after: []task{newFakeTask()}}).Run(ctx); err != nil {
		t.Errorf("Run = %v", err)
	}
}
