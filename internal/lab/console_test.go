package lab

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestScreen(t *testing.T) {
	for name, c := range map[string]struct {
		in      string
		lines   []string
		partial string
	}{
		"plain":              {"a\r\nb\nc", []string{"a", "b"}, "c"},
		"overwritten":        {"Press Ctrl-B\r            \rnet0: up\n", []string{"net0: up"}, ""},
		"progress":           {"file... 1%\b\b99%\b\b\bok \n", []string{"file... ok"}, ""},
		"backspaces at left": {"\b\bx", nil, "x"},
		"colours":            {"\x1b[0;1miPXE\x1b[0m -- \x1b[36mhttp\n", []string{"iPXE -- http"}, ""},
		"cursor jumps":       {"\x1b[2J\x1b[01;01H>>Start\x1b[05;01Hnext", []string{">>Start"}, "next"},
		"erased":             {"abcdef\r\x1b[Kxy\n", []string{"xy"}, ""},
		"title":              {"\x1b]0;title\aroot# ", nil, "root# "},
		"character set":      {"\x1b(Bok\n", []string{"ok"}, ""},
		"not UTF-8":          {"\xb3x\n", []string{"?x"}, ""},
		"prompt":             {"login: ", nil, "login: "},
		"no column":          {"ab\x1b[Gx", nil, "xb"},
	} {
		t.Run(name, func(t *testing.T) {
			// Bytes may come in any portions.
			for size := 1; size <= len(c.in); size++ {
				var s screen
				var lines []string
				for part := range slices.Chunk([]byte(c.in), size) {
					s.write(part, func(line string) { lines = append(lines, line) })
				}
				if !slices.Equal(lines, c.lines) || s.partial() != c.partial {
					t.Errorf("%d bytes at a time: %q and %q, want %q and %q", size, lines, s.partial(), c.lines, c.partial)
				}
			}
		})
	}
}

func FuzzScreen(f *testing.F) {
	f.Add([]byte("\x1b[2J\x1b[01;01Ha\b\b\r\x1b[K\x1b]0;x\x1b\\\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s screen
		s.write(data, func(line string) {
			if strings.ContainsAny(line, "\x1b\r\n") {
				t.Errorf("line %q", line)
			}
		})
	})
}

func TestConsoleExpect(t *testing.T) {
	var c console
	var heard []string
	c.lines(func(_ time.Time, line string) { heard = append(heard, line) })
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.read(r, io.Discard)
	}()
	say := func(text string) {
		t.Helper()
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	say("one\r\nstall=12")
	say("3 ms\r\nlogin: ")
	match, err := c.expect(`^stall=(\d+) ms\n`, time.Second)
	if err != nil || match[1] != "123" {
		t.Fatalf("%q, %v", match, err)
	}
	if _, err := c.expect(`^login: $`, time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := c.expect(`one`, 20*time.Millisecond); err == nil || !strings.Contains(err.Error(), "stall=123") {
		t.Errorf("what came before was found again, or the error does not show the text: %v", err)
	}
	w.Close()
	<-ended
	if _, err := c.expect(`never`, time.Minute); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("the end was not noticed: %v", err)
	}
	if want := []string{"one", "stall=123 ms"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}
