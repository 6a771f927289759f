package image_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/internal/lab"
)

// keeperScript returns keep-iscsid as the hook writes it, with its paths below dir.
func keeperScript(t *testing.T, dir string) string {
	t.Helper()
	hook, err := os.ReadFile("vdisk/initramfs/hooks/everboot")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(hook), "keep-iscsid\" <<'END'\n")
	text, _, end := strings.Cut(text, "\nEND\n")
	if !ok || !end {
		t.Fatal("the hook no longer writes keep-iscsid")
	}
	return strings.NewReplacer("/sys/class/iscsi_session", dir, "/dev/kmsg", filepath.Join(dir, "kmsg"), "/sbin/busybox sleep", "sleep",
		"@iscsid", filepath.Join(dir, "@iscsid")).Replace(text)
}

// TestLabKeeperStartsAnotherIscsid plays an iscsid that spins without a session, one that ends, and one that waits: the first two are
// replaced, the third is left alone.
func TestLabKeeperStartsAnotherIscsid(t *testing.T) {
	if !lab.Wanted() {
		t.Skip("needs EVERBOOT_LAB=1: it takes some seconds")
	}
	for name, tt := range map[string]struct {
		does, state string
		replaced    bool
	}{
		"spins without a session": {"while :; do :; done", "FAILED", true},
		"ends":                    {"exit 1", "LOGGED_IN", true},
		"waits for a streamer":    {"exec sleep 60", "FAILED", false},
		"works hard":              {"while :; do :; done", "LOGGED_IN", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write := func(name, text string, mode os.FileMode) {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
					t.Fatal(err)
				}
			}
			write("session1/state", tt.state+"\n", 0o644)
			write("@iscsid", "#!/bin/sh\necho x >>"+dir+"/starts\n"+tt.does+"\n", 0o755)
			write("keeper", keeperScript(t, dir), 0o755)
			keeper := exec.Command("sh", filepath.Join(dir, "keeper"))
			keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
			if err := keeper.Start(); err != nil {
				t.Fatal(err)
			}
			starts := func() int {
				text, _ := os.ReadFile(filepath.Join(dir, "starts"))
				return strings.Count(string(text), "x")
			}
			err := lab.Eventually(6*time.Second, "another one is started", func() error {
				if starts() < 2 {
					return errors.New("one was started")
				}
				return nil
			})
			if (err == nil) != tt.replaced {
				t.Errorf("it was started %d times", starts())
			}
			if err := syscall.Kill(-keeper.Process.Pid, syscall.SIGKILL); err != nil { // its whole group
				t.Error(err)
			}
			_ = keeper.Wait() // killed
		})
	}
}
