package leases

import (
	"bytes"
	"container/heap"
)

// queue holds records by the time in expires, or by that in ended, the earliest first; equal times by address.
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
	heap.Remove(q, int(r.index))
	r.in = nil
}

// Len implements heap.Interface.
func (q *queue) Len() int { return len(q.list) }

// Less implements heap.Interface.
func (q *queue) Less(i, j int) bool {
	a, b := q.list[i], q.list[j]
	at, bt := a.expires, b.expires
	if q.byEnd {
		at, bt = a.ended, b.ended
	}
	if at == bt {
		return bytes.Compare(a.addr[:], b.addr[:]) < 0
	}
	return at < bt
}

// Swap implements heap.Interface.
func (q *queue) Swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	q.list[i].index, q.list[j].index = int32(i), int32(j)
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	r := x.(*record)
	r.index = int32(len(q.list))
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
