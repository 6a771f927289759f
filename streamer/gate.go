package streamer

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"everboot/site"
)

const (
	// loginsPerStreamer are with one streamer at a time. Each login waits for the streamer's answer, so logins go at the pace that
	// the streamers take; a few under way keep a streamer busy while others are on the wire.
	loginsPerStreamer = 16
	// loginsPerDevice may wait or be under way: firmware opens two sessions, and an initiator that lost one may come back before we know.
	loginsPerDevice = 4
)

// gate bounds the logins that are with the streamers, and lets the others in by the order of their arrival.
type gate struct {
	mu      sync.Mutex
	room    int
	inside  int
	queue   arrivals
	devices map[site.MAC]int
}

// ticket is one login's place in the queue.
type ticket struct {
	arrived time.Time
	turn    chan struct{}
	index   int // in the queue; -1: its turn has come
}

// resize follows the number of streamers that take logins.
func (g *gate) resize(streamers int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.room = max(1, streamers) * loginsPerStreamer
	g.admit()
}

// register counts a login of a device. It reports false if the device has too many already; else unregister ends what it began.
func (g *gate) register(device site.MAC) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.devices == nil {
		g.devices = make(map[site.MAC]int)
	}
	if g.devices[device] >= loginsPerDevice {
		return false
	}
	g.devices[device]++
	return true
}

func (g *gate) unregister(device site.MAC) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.devices[device]--; g.devices[device] <= 0 {
		delete(g.devices, device)
	}
}

// enter waits for a login's turn, by the order in which logins arrived. It reports false if that does not come before the deadline
// or the end of ctx. After true, leave must be called.
func (g *gate) enter(ctx context.Context, arrived, deadline time.Time) bool {
	t := &ticket{arrived: arrived, turn: make(chan struct{})}
	g.mu.Lock()
	heap.Push(&g.queue, t)
	g.admit()
	g.mu.Unlock()
	select {
	case <-t.turn:
		return true
	default:
	}
	over := time.NewTimer(time.Until(deadline))
	defer over.Stop()
	select {
	case <-t.turn:
		return true
	case <-over.C:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.index < 0 { // at the same moment
		return true
	}
	heap.Remove(&g.queue, t.index)
	return false
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.admit()
}

func (g *gate) admit() {
	for g.inside < g.room && len(g.queue) > 0 {
		g.inside++
		close(heap.Pop(&g.queue).(*ticket).turn)
	}
}

// arrivals is a heap of tickets, the earliest first.
type arrivals []*ticket

func (a arrivals) Len() int           { return len(a) }
func (a arrivals) Less(i, j int) bool { return a[i].arrived.Before(a[j].arrived) }
func (a arrivals) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

// Push implements heap.Interface.
func (a *arrivals) Push(x any) {
	t := x.(*ticket)
	t.index = len(*a)
	*a = append(*a, t)
}

// Pop implements heap.Interface.
func (a *arrivals) Pop() any {
	t := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	t.index = -1
	return t
}
