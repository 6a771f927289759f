package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// envInside is set to 1 by Main for the program that it starts.
const envInside = "EVERBOOT_LAB_INNER"

// Main calls run where a lab can be made and returns its exit code. For root that is here. For anybody else it starts this program
// again, with the same arguments, as root of new user, mount and network namespaces; run is called there, and /run is empty there.
func Main(run func() int) int {
	err := addSbin()
	if err == nil && os.Getenv(envInside) == "1" {
		err = settleInside()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: preparing this process: %v\n", err)
		return 1
	}
	if os.Geteuid() == 0 {
		return run()
	}
	return runInside()
}

// addSbin adds the folders of administrators' programs to PATH, where a normal user of Debian does not have them.
func addSbin() error {
	return os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
}

// runInside starts this program again in namespaces of its own, and hands signals on to it.
func runInside() int {
	runtime.LockOSThread() // the child dies with this thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "lab: making a user namespace for %s: %v; run this as root, or allow user namespaces"+
			" (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)\n", userName(), err)
		return 1
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			// A Ctrl-C in the terminal has reached the child already.
			if s != os.Interrupt {
				_ = cmd.Process.Signal(s) // the only error is that it is gone
			}
		case err := <-ended:
			return exitCode(err)
		}
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	}
	fmt.Fprintf(os.Stderr, "lab: the program in the user namespace: %v\n", err)
	return 1
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint("user ", os.Getuid())
}

// settleInside makes the new namespaces fit to live in: a loopback interface, and a /run that peers can write to.
func settleInside() error {
	if err := configure("lo", nil); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	return nil
}
