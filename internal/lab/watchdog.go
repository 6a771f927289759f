package lab

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// watchdog is a small process that outlives this one if this one is killed, and then kills what lives in the lab's namespaces.
// Parent-death signals alone are not enough: daemons fork, and a grandchild does not get the signal.
type watchdog struct {
	cmd  *exec.Cmd
	stay *os.File // its standard input; nobody ever writes to it
}

// The shell waits until its standard input ends. Two rounds, for what forks during the first. It holds the namespaces open
// (descriptors 3 and up), so that their numbers cannot belong to somebody else meanwhile.
const watchdogScript = `read -r _
for round in 1 2; do
  for p in /proc/[0-9]*; do
    n=$(readlink "$p/ns/net" 2>/dev/null) || continue
    case " $* " in *" $n "*) kill -KILL "${p#/proc/}" 2>/dev/null ;; esac
  done
done`

func startWatchdog(spaces []*space) (*watchdog, error) {
	in, stay, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting the watchdog: %w", err)
	}
	defer in.Close()
	args := []string{"-c", watchdogScript, "lab-watchdog"}
	cmd := exec.Command("/bin/sh")
	cmd.Stdin = in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C in the terminal is not for it
	for _, s := range spaces {
		args = append(args, fmt.Sprintf("net:[%d]", s.inode))
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.file)
	}
	cmd.Args = append([]string{"lab-watchdog"}, args...)
	if err := cmd.Start(); err != nil {
		stay.Close()
		return nil, fmt.Errorf("starting the watchdog: %w", err)
	}
	return &watchdog{cmd: cmd, stay: stay}, nil
}

// dismiss ends the watchdog without letting it do anything.
func (w *watchdog) dismiss() {
	if w == nil {
		return
	}
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait() // "signal: killed", as asked
	w.stay.Close()
}
