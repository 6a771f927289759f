package wire

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"everboot/internal/golden"
)

// TestTraces: lines of input are comments, then "session" or "adopted" with its terms, then "<time>: <event>". Ticks are not written: the player
// steps the machine at each deadline up to the time of the next event.
func TestTraces(t *testing.T) {
	golden.Traces(t, func(out *strings.Builder) func(string) error { return (&player{out: out}).line })
}

// player writes a trace again while it plays it.
type player struct {
	out     *strings.Builder
	session Session
	now     time.Duration
}

func (p *player) line(line string) error {
	when, what, timed := strings.Cut(line, ": ")
	if timed && !strings.HasPrefix(line, "#") {
		at, err := time.ParseDuration(when)
		if err != nil {
			return err
		}
		p.ticks(at)
	}
	fmt.Fprintln(p.out, line)
	words := strings.Fields(what)
	switch {
	case line == "" || strings.HasPrefix(line, "#"):
		return nil
	case !timed:
		return p.begin(strings.Fields(line))
	case words[0] == "quiet": // only time goes by
		return nil
	}
	e := Event{Kind: map[string]EventKind{"start": Start, "again": Again, "ack": Ack, "error": Failed, "adopt": Adopted}[words[0]]}
	if len(words) > 1 {
		n, err := strconv.ParseUint(words[1], 10, 16)
		if err != nil {
			return err
		}
		e.Block = uint16(n)
	}
	p.did(p.session.Step(p.now, e))
	return nil
}

func (p *player) begin(words []string) error {
	t, acked := Terms{Block: DefaultBlock, Window: 1}, uint64(0)
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "size":
			t.Size = int64(n)
		case "block":
			t.Block = n
		case "window":
			t.Window = n
		case "timeout":
			t.Timeout = n
		case "options":
			t.Options = true
		case "acked":
			acked = uint64(n)
		default:
			return fmt.Errorf("no term %q", key)
		}
	}
	p.now = 0
	p.session = NewSession(t)
	if words[0] == "adopted" {
		p.session = NewAdopted(t, acked, true)
	}
	return nil
}

// ticks steps the machine at each deadline before the time.
func (p *player) ticks(until time.Duration) {
	for p.session.sentAt+p.session.heardAt > 0 || p.session.tries > 0 {
		d := p.session.Deadline()
		if p.session.Result() != Running || d >= until {
			break
		}
		p.now = d
		fmt.Fprintf(p.out, " %v", d)
		p.did(p.session.Step(d, Event{Kind: Tick}))
	}
	p.now = until
}

func (p *player) did(a Action) {
	switch a.What {
	case Nothing:
		fmt.Fprintln(p.out, " nothing")
	case SendOAck:
		fmt.Fprintln(p.out, " oack")
	case SendBlocks:
		fmt.Fprintf(p.out, " data %d to %d\n", a.First, a.First+uint64(a.Count)-1)
	case End:
		fmt.Fprintf(p.out, " end: %v, %d bytes, %d sent again\n", p.session.Result(), p.session.Bytes(), p.session.Resent())
	}
}
