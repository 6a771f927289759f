package tftp_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"everboot/tftp"
)

// again is what the clients of these tests wait for an answer, as iPXE does.
const again = 250 * time.Millisecond

// limbo is a client that has asked one server and not gone on when another one took over, which has another file of that name.
func limbo(t *testing.T, old, ours int, options ...string) (p *pair, w *client, want []byte) {
	t.Helper()
	p = newPair(t, tftp.Config{})
	p.a.write("file", old)
	want = p.b.write("file", ours)
	want[0]++
	p.b.put("file", want)
	w = p.a.dial(2)
	w.send(1, append([]string{"file", "octet"}, options...)...)
	if w.receive(soon) == nil {
		t.Fatal("no answer")
	}
	p.await(1)
	p.move()
	for w.receive(quiet) != nil { // what the first had repeated
	}
	return p, w, want
}

// rest reads the blocks of a file, the first of which is awaited by a client that says again and again what it has.
func (c *client) rest(size, block int, say func()) ([]byte, error) {
	var got []byte
	for n, tries := 1, 0; ; {
		p := c.receive(again)
		switch {
		case p == nil:
			if tries++; tries > 6 {
				return got, fmt.Errorf("no answer instead of block %d", n)
			}
			say()
		case p[1] == 5:
			return got, fmt.Errorf("%s", p[4:len(p)-1])
		case p[1] == 6 && n == 1:
			say = func() { c.ack(0) }
			say()
		case p[1] == 3 && int(p[2])<<8|int(p[3]) == n:
			got = append(got, p[4:]...)
			c.ack(uint16(n))
			if n++; len(p) < 4+block {
				return got, nil
			}
			say = func() { c.ack(uint16(n - 1)) }
		}
	}
}

const other = "the file differs on the appliance that took over: start again"

// TestOtherFileBeginsAnew: a client that has nothing of the old file gets the new one, whole, from its first block on.
func TestOtherFileBeginsAnew(t *testing.T) {
	ipxe := []string{"blksize", "1432", "tsize", "0"}
	pxelinux := []string{"tsize", "0", "blksize", "1408"}
	for _, c := range []struct {
		name      string
		old, ours int
		options   []string
		fails     bool
	}{
		{"EDK2 asks for the size beforehand", 9000, 5000, []string{"blksize", "1468", "windowsize", "4"}, false},
		{"a file of the same size", 9000, 9000, pxelinux, false},
		{"iPXE makes room for a longer file", 5000, 9000, ipxe, false},
		{"iPXE would wait for the end of a longer one", 9000, 5000, ipxe, true},
		{"PXELINUX cuts a longer one", 5000, 9000, pxelinux, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, w, want := limbo(t, c.old, c.ours, c.options...)
			block := map[bool]int{true: 1432, false: 1408}[c.options[1] == "1432"]
			if c.options[1] == "1468" {
				block = 1468
			}
			got, err := w.rest(c.ours, block, func() { w.ack(0) })
			if c.fails {
				if err == nil || err.Error() != other || len(got) != 0 {
					t.Errorf("%d bytes, %v, want %q", len(got), err, other)
				}
				return
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
			}
			p.b.eventually("taken over", func(s tftp.Stats) bool {
				return s.Resumed == 1 && s.Finished["complete"] == 1 && s.Active == 0 && s.Dropped["other_file"] == 0
			})
		})
	}
}

// TestOtherFileIsAskedForAgain: who has had no answer at all asks again, and gets what everybody gets.
func TestOtherFileIsAskedForAgain(t *testing.T) {
	_, w, want := limbo(t, 9000, 5000, "blksize", "1432", "tsize", "0")
	got, err := w.rest(5000, 1432, func() { w.send(1, "file", "octet", "blksize", "1432", "tsize", "0") })
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

// TestOtherFileIsNeverMixed: a client that has more than we were told is told so, also if it said before that it has nothing: that was on its way.
func TestOtherFileIsNeverMixed(t *testing.T) {
	_, w, _ := limbo(t, 9000, 9000, "blksize", "1432")
	if got, err := w.rest(9000, 1432, func() { w.ack(1) }); err == nil || err.Error() != other || len(got) != 0 {
		t.Errorf("%d bytes, %v, want %q", len(got), err, other)
	}
	// Within the time in which a block of the old file may be on its way.
	p := newPair(t, tftp.Config{})
	p.a.write("file", 9000)
	p.b.write("file", 8000)
	w = p.a.dial(2)
	w.send(1, "file", "octet", "blksize", "1432")
	if w.receive(soon) == nil {
		t.Fatal("no answer")
	}
	p.await(1)
	p.move()
	w.ack(0)
	if got, err := w.rest(8000, 1432, func() { w.ack(1) }); err == nil || err.Error() != other || len(got) != 0 {
		t.Errorf("%d bytes, %v, want %q", len(got), err, other)
	}
}
