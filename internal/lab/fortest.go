package lab

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	envWanted = "EVERBOOT_LAB"     // set to 1 by whoever wants lab tests
	envKeep   = "EVERBOOT_LAB_DIR" // a folder in which each test's logs and captures stay
)

// Wanted tells whether lab tests are asked for: EVERBOOT_LAB=1.
func Wanted() bool { return os.Getenv(envWanted) == "1" }

// ForTest returns a lab that ends with the test. It skips the test unless EVERBOOT_LAB=1; then it fails the test if the lab cannot
// be. When the test fails, the ends of all logs and the decoded captures are printed. With EVERBOOT_LAB_DIR=DIR they also stay
// in DIR/<test>.
func ForTest(t testing.TB) *Lab {
	t.Helper()
	if !Wanted() {
		t.Skip("lab tests run with EVERBOOT_LAB=1 only: they need Linux namespaces and the packages of `make deps`")
	}
	l, err := Open(Options{
		Dir:  testDir(t),
		Log:  slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
		Fail: func(err error) { t.Helper(); t.Fatalf("lab: %v", err) },
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.tell(t)
		}
		if err := l.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return l
}

// testDir is a folder with a path short enough for sockets, which t.TempDir's may not be.
func testDir(t testing.TB) string {
	t.Helper()
	if keep := os.Getenv(envKeep); keep != "" {
		dir := filepath.Join(keep, strings.ReplaceAll(t.Name(), "/", "-"))
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
			t.Fatalf("lab: %v", err)
		}
		return dir
	}
	dir, err := os.MkdirTemp("", "everboot-lab-")
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// tell prints what a person wants to see of a lab in which something went wrong.
func (l *Lab) tell(t testing.TB) {
	const logLines, frames = 40, 200
	logs, err := filepath.Glob(filepath.Join(l.options.Dir, "*.log"))
	if err != nil {
		t.Logf("lab: %v", err)
	}
	for _, path := range logs {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			t.Logf("--- end of %s\n%s", filepath.Base(path), lastLines(readable(text), logLines))
		}
	}
	l.mu.Lock()
	segments := slices.Clone(l.segments)
	l.mu.Unlock()
	for _, s := range segments {
		if s.capture() == nil {
			continue
		}
		lines, err := s.Decoded("")
		if err != nil {
			t.Logf("lab: %v", err)
		}
		t.Logf("--- segment %s, last %d of %d frames\n%s", s.name, min(frames, len(lines)), len(lines),
			strings.Join(lines[max(0, len(lines)-frames):], "\n"))
	}
}

// readable is what a terminal would show of a log.
func readable(log []byte) string {
	var s screen
	var text strings.Builder
	s.write(log, func(line string) { text.WriteString(line + "\n") })
	return text.String() + s.partial()
}

// Need fails the test if a program is missing.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("lab: this test needs the program %s, which is not installed; run `make deps`", p)
		}
	}
}

// NeedFile fails the test if a file, such as firmware, is missing.
func NeedFile(t testing.TB, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			t.Fatalf("lab: this test needs %s, which is not there; run `make deps`", p)
		}
	}
}

// TestMain runs a package's tests where a lab can be made, and returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(lab.TestMain(m)) }
//
// Where lab tests are not asked for, it does nothing but run the tests. See [Main] for those who are not root.
func TestMain(m *testing.M) int {
	if !Wanted() {
		return m.Run()
	}
	return Main(m.Run)
}
