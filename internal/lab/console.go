package lab

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// screen turns what a terminal is told into lines of text: escape sequences vanish, a carriage return or a backspace overwrites
// what stands there, a jump of the cursor ends the line.
type screen struct {
	line   []byte
	column int
	state  escape
	args   []byte // of the escape sequence at hand
}

// escape says where in an escape sequence the screen is.
type escape int

const (
	plain   escape = iota
	started        // after ESC
	control        // in a control sequence, ESC [
	other          // ESC ( and the like: one more byte
	system         // in an operating system command, ESC ], until BEL or ESC \
)

// write takes bytes and calls emit with each line that they finish.
func (s *screen) write(data []byte, emit func(line string)) {
	for _, b := range data {
		switch s.state {
		case plain:
			s.plain(b, emit)
		case started:
			s.start(b, emit)
		case control:
			s.control(b, emit)
		case other:
			s.state = plain
		case system:
			if b == '\a' || b == '\\' {
				s.state = plain
			}
		}
	}
}

func (s *screen) plain(b byte, emit func(string)) {
	switch {
	case b == '\n':
		s.finish(emit)
	case b == '\r':
		s.column = 0
	case b == '\b':
		s.column = max(0, s.column-1)
	case b == 0x1b:
		s.state, s.args = started, s.args[:0]
	case b == '\t':
		s.put(' ')
	case b >= ' ':
		s.put(b)
	}
}

func (s *screen) start(b byte, emit func(string)) {
	switch b {
	case '[':
		s.state = control
	case ']':
		s.state = system
	case '(', ')', '#', '%':
		s.state = other
	case 'E', 'c': // next line, reset
		s.finishSome(emit)
		s.state = plain
	default:
		s.state = plain
	}
}

func (s *screen) control(b byte, emit func(string)) {
	if b < '@' || b > '~' {
		s.args = append(s.args, b)
		return
	}
	s.state = plain
	switch b {
	case 'H', 'f', 'J', 'A', 'B', 'E', 'F': // the cursor goes elsewhere, or the screen is cleared
		s.finishSome(emit)
	case 'K': // erase to the end of the line
		s.line = s.line[:min(s.column, len(s.line))]
	case 'G': // to a column; only the first one is ever used
		s.column = 0
	}
}

func (s *screen) put(b byte) {
	const longest = 4096 // whoever prints without an end must not fill the memory
	for len(s.line) < s.column {
		s.line = append(s.line, ' ')
	}
	if s.column == len(s.line) {
		if s.column == longest {
			return
		}
		s.line = append(s.line, b)
	} else {
		s.line[s.column] = b
	}
	s.column++
}

func (s *screen) finish(emit func(string)) {
	emit(strings.TrimRight(s.partial(), " "))
	s.line, s.column = s.line[:0], 0
}

// finishSome finishes a line that has text.
func (s *screen) finishSome(emit func(string)) {
	if len(s.line) > 0 {
		s.finish(emit)
	}
}

// partial is the line that is not finished.
func (s *screen) partial() string { return strings.ToValidUTF8(string(s.line), "?") }

// console is a serial console that is read all the time and searched with Expect.
type console struct {
	mu      sync.Mutex
	screen  screen
	text    strings.Builder // the finished lines
	version int             // grows with each read
	ended   bool
	hear    []func(time.Time, string)

	seen int // how far Expect has read; of one caller at a time
}

// read reads from r until it ends, and copies everything to raw.
func (c *console) read(r io.Reader, raw io.Writer) {
	buffer := make([]byte, 4096)
	for {
		n, err := r.Read(buffer)
		c.take(time.Now(), buffer[:n])
		if _, werr := raw.Write(buffer[:n]); err != nil || werr != nil {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.version++
}

func (c *console) take(now time.Time, data []byte) {
	var lines []string
	c.mu.Lock()
	c.screen.write(data, func(line string) {
		lines = append(lines, line)
		c.text.WriteString(line + "\n")
	})
	c.version++
	hear := slices.Clone(c.hear)
	c.mu.Unlock()
	for _, line := range lines {
		for _, f := range hear {
			f(now, line)
		}
	}
}

// String is all text so far.
func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String() + c.screen.partial()
}

func (c *console) lines(f func(time.Time, string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hear = append(c.hear, f)
}

// expect waits until the text after the last match matches.
func (c *console) expect(pattern string, timeout time.Duration) ([]string, error) {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return nil, fmt.Errorf("reading pattern %q: %w", pattern, err)
	}
	const tail = 30
	var match []string
	looked := -1
	err = Eventually(timeout, "waiting for "+pattern, func() bool {
		c.mu.Lock()
		version, ended := c.version, c.ended
		c.mu.Unlock()
		if version == looked {
			return ended
		}
		looked = version
		match = c.next(re)
		return match != nil || ended
	})
	if match != nil {
		return match, nil
	}
	if err == nil {
		err = fmt.Errorf("waiting for %s: the console has ended", pattern)
	}
	return nil, fmt.Errorf("%w; its last lines:\n%s", err, lastLines(c.String(), tail))
}

func (c *console) next(re *regexp.Regexp) []string {
	text := c.String()
	c.seen = min(c.seen, len(text)) // an unfinished line may have become shorter
	at := re.FindStringSubmatchIndex(text[c.seen:])
	if at == nil {
		return nil
	}
	match := make([]string, len(at)/2)
	for i := range match {
		if at[2*i] >= 0 {
			match[i] = text[c.seen+at[2*i] : c.seen+at[2*i+1]]
		}
	}
	c.seen += at[1]
	return match
}
