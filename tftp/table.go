package tftp

import (
	"time"

	"everboot/tftp/wire"
)

// transfer is one transfer of the owner's table.
type transfer struct {
	ends    endpoints
	socket  *socket
	route   route
	request wire.Request
	raw     []byte // the request as it came
	limits  wire.Limits
	// session is valid once image is set.
	session wire.Session
	image   *image
	probe   bool           // of an appliance
	code    wire.ErrorCode // what the client's ERROR said
	text    string

	began   time.Time
	resumed int    // how often it was taken over
	adopted int64  // bytes that its client had then
	number  uint32 // our name for it to other appliances
	told    int    // how often they were told of it
	// toldAcked is how far they know it to be.
	toldAcked uint64
	held      int64 // waits until so many bytes of its file are read; 0: does not wait

	due  time.Duration // when the table looks at it again; never after the session's deadline
	heap int           // index in the table's heap; -1: not in it

	// The list of clients that have never answered, the oldest first.
	older, newer *transfer
	stranger     bool
}

// table holds the transfers by their ends, by their deadlines, and by client. Only its owner uses it.
type table struct {
	max, perClient int
	byEnds         map[endpoints]*transfer
	clients        map[[16]byte]int
	probes         int // how many are of appliances
	heap           []*transfer
	oldest, newest *transfer // strangers
	strangers      int
}

func newTable(most, perClient int) *table {
	return &table{max: most, perClient: perClient, byEnds: make(map[endpoints]*transfer), clients: make(map[[16]byte]int)}
}

// victim returns who must go before a transfer of the client can be added: nobody (nil, true), a client that has never answered, or
// nobody may (nil, false). So a flood of requests with false senders takes places from itself, not from those who load.
func (t *table) victim(client [16]byte) (who *transfer, ok bool) {
	if t.clients[client] >= t.perClient {
		for v := t.oldest; v != nil; v = v.newer {
			if v.ends.remote == client {
				return v, true
			}
		}
		return nil, false
	}
	if len(t.byEnds) >= t.max {
		return t.oldest, t.oldest != nil
	}
	return nil, true
}

// forgotten returns the appliances' probe that has not answered for longest, or nil.
func (t *table) forgotten() *transfer {
	for v := t.oldest; v != nil; v = v.newer {
		if v.probe {
			return v
		}
	}
	return nil
}

func (t *table) add(tr *transfer) {
	t.byEnds[tr.ends] = tr
	t.clients[tr.ends.remote]++
	if tr.probe {
		t.probes++
	}
	tr.heap = -1
	t.strangers++
	tr.stranger, tr.older = true, t.newest
	if t.newest != nil {
		t.newest.newer = tr
	} else {
		t.oldest = tr
	}
	t.newest = tr
}

// met takes a client that has answered from the list of strangers.
func (t *table) met(tr *transfer) {
	if !tr.stranger {
		return
	}
	t.strangers--
	tr.stranger = false
	if tr.older != nil {
		tr.older.newer = tr.newer
	} else {
		t.oldest = tr.newer
	}
	if tr.newer != nil {
		tr.newer.older = tr.older
	} else {
		t.newest = tr.older
	}
	tr.older, tr.newer = nil, nil
}

// loading is how many clients have answered: a flood of requests adds nothing to it.
func (t *table) loading() int { return len(t.byEnds) - t.strangers }

func (t *table) remove(tr *transfer) {
	t.met(tr)
	t.unschedule(tr)
	delete(t.byEnds, tr.ends)
	if tr.probe {
		t.probes--
	}
	if n := t.clients[tr.ends.remote]; n > 1 {
		t.clients[tr.ends.remote] = n - 1
	} else {
		delete(t.clients, tr.ends.remote)
	}
}

// schedule has the table look at a transfer at a time or before. A deadline that moves back is left where it is: whoever is woken too
// early is put back, which is cheaper than to move it with every packet.
func (t *table) schedule(tr *transfer, at time.Duration) {
	switch {
	case tr.heap < 0:
		tr.due, tr.heap = at, len(t.heap)
		t.heap = append(t.heap, tr)
		t.up(tr.heap)
	case at < tr.due:
		tr.due = at
		t.up(tr.heap)
	}
}

// first returns the transfer that is due next.
func (t *table) first() *transfer {
	if len(t.heap) == 0 {
		return nil
	}
	return t.heap[0]
}

// postpone moves the first transfer back.
func (t *table) postpone(at time.Duration) {
	t.heap[0].due = at
	t.down(0)
}

func (t *table) unschedule(tr *transfer) {
	i := tr.heap
	if i < 0 {
		return
	}
	last := len(t.heap) - 1
	t.swap(i, last)
	t.heap[last] = nil
	t.heap = t.heap[:last]
	tr.heap = -1
	if i < last {
		t.down(i)
		t.up(i)
	}
}

func (t *table) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if t.heap[parent].due <= t.heap[i].due {
			return
		}
		t.swap(i, parent)
		i = parent
	}
}

func (t *table) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t.heap) {
			return
		}
		if child+1 < len(t.heap) && t.heap[child+1].due < t.heap[child].due {
			child++
		}
		if t.heap[i].due <= t.heap[child].due {
			return
		}
		t.swap(i, child)
		i = child
	}
}

func (t *table) swap(i, j int) {
	t.heap[i], t.heap[j] = t.heap[j], t.heap[i]
	t.heap[i].heap, t.heap[j].heap = i, j
}
