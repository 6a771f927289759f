package guest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBlocksArePureFunctionsOfTheirIndex(t *testing.T) {
	a, b := make([]byte, BlockSize), make([]byte, BlockSize)
	FillBlock(7, a)
	FillBlock(7, b)
	if !bytes.Equal(a, b) || !CheckBlock(7, a) {
		t.Error("block 7 differs from itself")
	}
	if CheckBlock(8, a) {
		t.Error("block 7 passes for block 8")
	}
	for _, at := range []int{0, 7, 2048, BlockSize - 1} {
		a[at] ^= 1
		if CheckBlock(7, a) {
			t.Errorf("one wrong bit in byte %d is not seen", at)
		}
		a[at] ^= 1
	}
	if CheckBlock(7, a[:BlockSize-1]) {
		t.Error("a block that is cut passes")
	}
}

func TestWriteAreaWritesEveryBlock(t *testing.T) {
	var area bytes.Buffer
	const blocks = 300 // more than one buffer of WriteArea
	if err := WriteArea(&area, blocks*BlockSize); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(blocks) {
		if !CheckBlock(i, area.Bytes()[i*BlockSize:(i+1)*BlockSize]) {
			t.Fatalf("block %d is wrong", i)
		}
	}
	if err := WriteArea(&area, 100); err == nil {
		t.Error("a size that is no multiple of the block passes")
	}
}

func TestParse(t *testing.T) {
	const line = "guest: uptime_ms=61500 reads=412 bytes=1687552 longest_us=27113 window_longest_us=1200 errors=0 mismatches=0 multiuser=1"
	want := Report{Uptime: 61500 * time.Millisecond, Reads: 412, Bytes: 1687552, Longest: 27113 * time.Microsecond,
		WindowLongest: 1200 * time.Microsecond, Multiuser: true}
	tests := []struct {
		name, line string
		ok         bool
	}{
		{"as written", line, true},
		{"with the console's line end", line + "\r\n", true},
		{"behind something else", "[   12.3] sd 2:0:0:1: x" + line, true},
		{"cut", line[:len(line)-1], false},
		{"cut in a number", line[:40], false},
		{"mixed with a kernel message", strings.Replace(line, "bytes", "[ 3.1] by", 1), false},
		{"more behind it", line + "0", false},
		{"something else", "Debian GNU/Linux 12", false},
		{"empty", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Parse(tt.line)
			if ok != tt.ok || ok && got != want {
				t.Errorf("Parse = %+v, %v", got, ok)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Report{Reads: 1, Multiuser: true}.String())
	f.Add("guest: uptime_ms=-1 reads=")
	f.Fuzz(func(t *testing.T, line string) {
		if r, ok := Parse(line); ok && !strings.Contains(line, r.String()) {
			t.Errorf("Parse(%q) = %q", line, r)
		}
	})
}

// area answers as told, after a time.
type area struct {
	answer func(index uint64, buf []byte) (time.Duration, error)
}

func (a area) ReadAt(buf []byte, off int64) (int, error) {
	took, err := a.answer(uint64(off)/BlockSize, buf)
	time.Sleep(took) // of synctest
	if err != nil {
		return 0, err
	}
	return len(buf), nil
}

// lines runs a reader for a while of simulated time and returns its reports.
func lines(t *testing.T, forTime time.Duration, answer func(index uint64, buf []byte) (time.Duration, error)) []Report {
	t.Helper()
	var reports []Report
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		reader, err := New(Config{
			Area: area{answer}, Blocks: 64, Buffer: make([]byte, BlockSize), Output: &out,
			Uptime:    func() time.Duration { return time.Since(start) },
			Multiuser: func() bool { return time.Since(start) > time.Second },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), forTime)
		defer cancel()
		if err := reader.Run(ctx); err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(out.String()) {
			report, ok := Parse(line)
			if !ok {
				t.Errorf("no report: %q", line)
			}
			reports = append(reports, report)
		}
	})
	return reports
}

func TestReaderReportsAStallWhileItLasts(t *testing.T) {
	reads := 0
	reports := lines(t, 3700*time.Millisecond, func(index uint64, buf []byte) (time.Duration, error) {
		reads++
		FillBlock(index, buf)
		if reads == 150 { // begins at 0.75 s
			return 2 * time.Second, nil
		}
		return time.Millisecond, nil
	})
	if len(reports) != 7 {
		t.Fatalf("%d lines in 3.7 s", len(reports))
	}
	want := []time.Duration{1, 250, 750, 1250, 1750, 2000, 1} // milliseconds in the window
	for i, r := range reports {
		if r.WindowLongest != want[i]*time.Millisecond {
			t.Errorf("line %d: the longest read of the window took %s, want %d ms", i, r.WindowLongest, want[i])
		}
		if r.Errors != 0 || r.Mismatches != 0 {
			t.Errorf("line %d: %s", i, r)
		}
	}
	if last := reports[6]; last.Longest != 2*time.Second || !last.Multiuser || reports[0].Multiuser {
		t.Errorf("the last line is %s", last)
	}
}

func TestReaderCountsErrorsAndWrongBytesAndGoesOn(t *testing.T) {
	reads := 0
	reports := lines(t, 600*time.Millisecond, func(index uint64, buf []byte) (time.Duration, error) {
		reads++
		switch reads {
		case 1:
			return 0, errors.New("input/output error")
		case 2:
			FillBlock(index+1, buf)
		default:
			FillBlock(index, buf)
		}
		return 0, nil
	})
	r := reports[0]
	if r.Errors != 1 || r.Mismatches != 1 || r.Reads < 90 || r.Bytes != (r.Reads-1)*BlockSize {
		t.Errorf("got %s", r)
	}
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration passes")
	}
}
