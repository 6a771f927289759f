package leases

import (
	"container/heap"
	"time"
)

// record is a lease and its place in the one queue that it is in, if any.
type record struct {
	Lease
	ended   time.Time // of the last lease that a client was told of; zero: there was none
	offered time.Time // until when our offer of it to the client stands
	in      *queue
	index   int
}

// queue holds records by the time in Expires, or by that in ended, the earliest first; equal times by address.
type queue struct {
	list  []*record
	byEnd bool
}

func (q *queue) add(r *record) {
	r.in = q
	heap.Push(q, r)
}

// remove takes a record out if it is in this queue.
func (q *queue) remove(r *record) {
	if r.in != q {
		return
	}
	heap.Remove(q, r.index)
	r.in = nil
}

// Len implements heap.Interface.
func (q *queue) Len() int { return len(q.list) }

// Less implements heap.Interface.
func (q *queue) Less(i, j int) bool {
	a, b := q.list[i], q.list[j]
	at, bt := a.Expires, b.Expires
	if q.byEnd {
		at, bt = a.ended, b.ended
	}
	if at.Equal(bt) {
		return a.Address.Less(b.Address)
	}
	return at.Before(bt)
}

// Swap implements heap.Interface.
func (q *queue) Swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	q.list[i].index, q.list[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	r := x.(*record)
	r.index = len(q.list)
	q.list = append(q.list, r)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(q.list) - 1
	r := q.list[last]
	q.list[last] = nil
	q.list = q.list[:last]
	return r
}
