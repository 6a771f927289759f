package guest

import (
	"fmt"
	"strings"
	"time"
)

// Report is one line of the guest.
type Report struct {
	Uptime        time.Duration // since the guest's kernel started
	Reads         uint64        // that returned, good or bad
	Bytes         uint64
	Longest       time.Duration // the longest read since the start, one in progress included
	WindowLongest time.Duration // the same since the line before
	Errors        uint64        // reads that the kernel refused
	Mismatches    uint64        // reads with a wrong byte
	Multiuser     bool          // systemd reached multi-user.target
}

const format = "guest: uptime_ms=%d reads=%d bytes=%d longest_us=%d window_longest_us=%d errors=%d mismatches=%d multiuser=%d"

// String returns the line, without its end.
func (r Report) String() string {
	multiuser := 0
	if r.Multiuser {
		multiuser = 1
	}
	return fmt.Sprintf(format, r.Uptime.Milliseconds(), r.Reads, r.Bytes, r.Longest.Microseconds(),
		r.WindowLongest.Microseconds(), r.Errors, r.Mismatches, multiuser)
}

// Parse reads what String wrote. Anything may stand before it in the line, as a serial console carries more than one
// voice; a line that was cut or mixed with another is no report.
func Parse(line string) (Report, bool) {
	at := strings.LastIndex(line, "guest: uptime_ms=")
	if at < 0 {
		return Report{}, false
	}
	text := strings.TrimRight(line[at:], "\r\n \t")
	var uptime, longest, window int64
	var multiuser uint8
	var r Report
	n, err := fmt.Sscanf(text, format, &uptime, &r.Reads, &r.Bytes, &longest, &window, &r.Errors, &r.Mismatches, &multiuser)
	if err != nil || n != 8 {
		return Report{}, false
	}
	r.Uptime = time.Duration(uptime) * time.Millisecond
	r.Longest = time.Duration(longest) * time.Microsecond
	r.WindowLongest = time.Duration(window) * time.Microsecond
	r.Multiuser = multiuser == 1
	return r, r.String() == text
}
