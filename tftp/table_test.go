package tftp

import "testing"

// TestStrangersDoNotLoad: a flood of requests whose senders never answer is no reason to let others' ACKs wait.
func TestStrangersDoNotLoad(t *testing.T) {
	table := newTable(1000, 1000)
	var all []*transfer
	for i := range 100 {
		tr := &transfer{ends: endpoints{port: uint16(i + 1)}}
		table.add(tr)
		all = append(all, tr)
	}
	if n := table.loading(); n != 0 {
		t.Errorf("%d of those that have not answered load", n)
	}
	for _, tr := range all[:40] {
		table.met(tr)
		table.met(tr) // again
	}
	for _, tr := range all[20:60] {
		table.remove(tr)
	}
	if n := table.loading(); n != 20 {
		t.Errorf("%d load, want 20", n)
	}
}
