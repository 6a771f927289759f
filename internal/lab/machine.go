package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Firmware is what a machine starts with.
type Firmware string

// The kinds of firmware.
const (
	BIOS Firmware = "bios" // SeaBIOS, with the iPXE of 2019 as boot ROM of the network card
	UEFI Firmware = "uefi" // OVMF x64 with its own PXE
)

// OVMF's code is shared; each machine gets a copy of the variables.
const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// MachineConfig is what a machine is made of. Name and Segment are needed.
type MachineConfig struct {
	Name     string
	Segment  *Segment
	MAC      string   // empty: one that depends on the name alone
	Firmware Firmware // empty: BIOS
	NIC      string   // QEMU's name of the network card; empty: virtio-net-pci
	MemoryMB int      // 0: 512
	CPUs     int      // 0: 1
	DiskMB   int      // size of an empty disk; 0: no disk
	ISO      string   // a CD image, which is started from before the network
	Disk     string   // a disk image, which is started from before the network; what the machine writes to it is lost
	USB      string   // the image of a USB stick, likewise
	// Kernel is started at once, without firmware's boot, with Initrd and the command line Append.
	Kernel, Initrd, Append string
	Extra                  []string // more arguments of QEMU
}

// Machine is a whole computer, emulated by QEMU, with one network card and a serial console.
type Machine struct {
	lab     *Lab
	config  MachineConfig
	process *Process
	cable   *Cable
	console console
	serial  net.Conn
	monitor *monitor
	wire    *wire          // nil with a tap
	files   []*os.File     // closed with the machine
	read    sync.WaitGroup // of the console's reader
	once    sync.Once
}

// Machine makes a machine and powers it on. It boots from the network unless the configuration names something else.
func (l *Lab) Machine(c MachineConfig) (*Machine, error) {
	m := &Machine{lab: l, config: c.withDefaults()}
	if err := m.start(); err != nil {
		m.close()
		return nil, fmt.Errorf("starting machine %s: %w", c.Name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.machines = append(l.machines, m)
	return m, nil
}

func (c MachineConfig) withDefaults() MachineConfig {
	if c.MAC == "" {
		c.MAC = macOf(c.Name, 0).String()
	}
	if c.Firmware == "" {
		c.Firmware = BIOS
	}
	if c.NIC == "" {
		c.NIC = "virtio-net-pci"
	}
	if c.MemoryMB == 0 {
		c.MemoryMB = 512
	}
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	return c
}

func (m *Machine) start() error {
	c := m.config
	mac, err := net.ParseMAC(c.MAC)
	if err != nil {
		return fmt.Errorf("reading its MAC: %w", err)
	}
	m.lab.mu.Lock()
	port, number := c.Segment.newPort(c.Name)
	m.lab.mu.Unlock()
	m.cable = &Cable{segment: c.Segment, port: port, number: number, mac: mac, machine: m}

	nic, err := m.nic(port)
	if err != nil {
		return err
	}
	ends := []*os.File{nic.File}
	if err := m.wireUp(nic, &ends); err != nil {
		closeFiles(ends)
		return err
	}
	closeFiles(ends) // QEMU has its own: when it dies, nobody else holds them
	if err := m.monitor.greet(); err != nil {
		return fmt.Errorf("%w: %s", err, lastLines(m.process.Log(), 3))
	}
	return nil
}

// wireUp starts QEMU between monitor and console. It adds QEMU's ends of the sockets to ends.
func (m *Machine) wireUp(nic nic, ends *[]*os.File) error {
	conn, end, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	*ends = append(*ends, end)
	m.monitor = &monitor{conn: conn, replies: json.NewDecoder(conn)}
	if m.serial, end, err = socketPair(unix.SOCK_STREAM); err != nil {
		return err
	}
	*ends = append(*ends, end)
	argv, err := m.argv(nic)
	if err != nil {
		return err
	}
	raw, err := os.OpenFile(m.path("console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	m.files = append(m.files, raw)
	m.process = m.lab.start(m.config.Segment.space, m.config.Name, Settings{Files: *ends}, "qemu", argv)
	if err := hurry(m.process.PID()); err != nil {
		m.lab.log.Warn("the machine's devices may be slow", "machine", m.config.Name, "error", err)
	}
	m.read.Go(func() { m.console.read(m.serial, raw) })
	return nil
}

// hurry puts QEMU's first thread before all others of this computer: it is the machine's devices, its card among them, and a real card does not wait until the
// programs of its neighbours have had their turn. open-iscsi gives a connection one millisecond, and then looks again a second later. The processors of the
// machine are threads of their own, which stay what they are.
func hurry(pid int) error {
	return unix.SchedSetAttr(pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close() // sockets and taps: nothing to lose
	}
}

func (m *Machine) path(suffix string) string {
	return filepath.Join(m.lab.options.Dir, m.config.Name+"-"+suffix)
}

// argv is QEMU's command line. Descriptor 3 is the network card, 4 the monitor, 5 the serial console.
func (m *Machine) argv(nic nic) ([]string, error) {
	c := m.config
	argv := []string{
		"qemu-system-x86_64", "-name", c.Name, "-nodefaults", "-no-user-config",
		// There is no hardware virtualisation that firmware could start in on the machines that run the tests.
		"-accel", "tcg,thread=multi", "-cpu", "max", "-m", strconv.Itoa(c.MemoryMB), "-smp", strconv.Itoa(c.CPUs),
		// Without graphics both SeaBIOS and iPXE speak on the serial line.
		"-nographic", "-machine", "q35,graphics=off", "-rtc", "base=utc",
		"-chardev", "socket,id=monitor,fd=4", "-mon", "chardev=monitor,mode=control",
		"-chardev", "socket,id=serial,fd=5", "-serial", "chardev:serial",
		// OVMF's network stack wants a source of randomness, and so does a guest's kernel.
		"-device", "virtio-rng-pci",
		"-netdev", nic.netdev,
	}
	card := fmt.Sprintf("%s,id=nic,netdev=net,mac=%s,bootindex=2", c.NIC, c.MAC)
	if c.Firmware == UEFI {
		vars, err := m.copyVars()
		if err != nil {
			return nil, err
		}
		argv = append(argv, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+ovmfCode,
			"-drive", "if=pflash,unit=1,format=raw,file="+vars)
	}
	if c.Firmware == UEFI || c.Kernel != "" {
		card += ",romfile=" // with UEFI iPXE's ROM would take the place of OVMF's own PXE; with a kernel it only costs time
	}
	argv = append(argv, "-device", card)
	media, err := m.media()
	if err != nil {
		return nil, err
	}
	argv = append(argv, media...)
	return append(argv, c.Extra...), nil
}

// media are QEMU's arguments for what the machine can start from beside the network.
func (m *Machine) media() (argv []string, err error) {
	c := m.config
	if c.ISO != "" {
		argv = append(argv, "-drive", "if=none,id=iso,media=cdrom,format=raw,readonly=on,file="+c.ISO, "-device", "ide-cd,drive=iso,bootindex=1")
	}
	if c.Disk != "" {
		argv = append(argv, "-drive", "if=none,id=image,format=raw,snapshot=on,file="+c.Disk, "-device", "virtio-blk-pci,drive=image,bootindex=1")
	}
	if c.USB != "" {
		argv = append(argv, "-device", "qemu-xhci", "-drive", "if=none,id=stick,format=raw,snapshot=on,file="+c.USB, "-device", "usb-storage,drive=stick,bootindex=1")
	}
	if c.DiskMB > 0 {
		path := m.path("disk.img")
		if err := makeEmpty(path, int64(c.DiskMB)<<20); err != nil {
			return nil, err
		}
		argv = append(argv, "-drive", "if=none,id=disk,format=raw,file="+path, "-device", "virtio-blk-pci,drive=disk,bootindex=3")
	}
	if c.Kernel != "" {
		argv = append(argv, "-kernel", c.Kernel, "-append", c.Append)
		if c.Initrd != "" {
			argv = append(argv, "-initrd", c.Initrd)
		}
	}
	return argv, nil
}

func makeEmpty(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// copyVars makes a fresh set of UEFI variables.
func (m *Machine) copyVars() (string, error) {
	data, err := os.ReadFile(ovmfVars)
	if err != nil {
		return "", fmt.Errorf("copying OVMF's variables: %w (run `make deps`)", err)
	}
	path := m.path("vars.fd")
	return path, os.WriteFile(path, data, 0o644)
}

// Expect waits until the console's text, from where the last match ended, matches the regular expression, and returns the match and
// its groups. ^ and $ stand for the ends of lines. The line that is being printed counts too: let a pattern that ends in
// something of variable length end with \n. The error shows the last 30 lines. One goroutine at a time may call it.
func (m *Machine) Expect(pattern string, timeout time.Duration) ([]string, error) {
	match, err := m.console.expect(pattern, timeout)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.config.Name, err)
	}
	return match, nil
}

// Lines calls f with each line that the console finishes from now on, and the time (with its monotonic part) at which it came.
// Calls come one after the other; f must be quick.
func (m *Machine) Lines(f func(t time.Time, line string)) { m.console.lines(f) }

// Console is the text that the console has shown so far.
func (m *Machine) Console() string { return m.console.String() }

// Send types text on the console, a hundred characters a second. A line ends with "\r".
func (m *Machine) Send(text string) error {
	// SeaBIOS empties the serial port at each tick of its clock, 18.2 times a second, into a keyboard buffer of 15 characters,
	// and drops what does not fit.
	const pause = 10 * time.Millisecond
	for i := range len(text) {
		if _, err := m.serial.Write([]byte{text[i]}); err != nil {
			return fmt.Errorf("typing on machine %s: %w", m.config.Name, err)
		}
		time.Sleep(pause)
	}
	return nil
}

// Reset presses the reset button.
func (m *Machine) Reset() {
	if err := m.monitor.do("system_reset", nil); err != nil {
		m.lab.fail(fmt.Errorf("resetting machine %s: %w", m.config.Name, err))
	}
}

// Stop takes the power away. The machine cannot be started again; make another one.
func (m *Machine) Stop() { m.close() }

// Cable is the machine's network cable.
func (m *Machine) Cable() *Cable { return m.cable }

// MAC is the address of the machine's network card.
func (m *Machine) MAC() net.HardwareAddr { return m.cable.mac }

// Process is QEMU.
func (m *Machine) Process() *Process { return m.process }

func (m *Machine) setLink(up bool) error {
	return m.monitor.do("set_link", map[string]any{"name": "nic", "up": up})
}

func (m *Machine) close() {
	m.once.Do(func() {
		if m.process != nil {
			m.process.Kill()
		}
		if m.monitor != nil {
			m.monitor.conn.Close()
		}
		if m.serial != nil {
			m.read.Wait() // QEMU's end is closed: the reader sees what is left, and the end
			m.serial.Close()
		}
		m.wire.close()
		closeFiles(m.files)
	})
}

// monitor speaks QEMU's machine protocol, QMP.
type monitor struct {
	mu      sync.Mutex
	conn    net.Conn
	replies *json.Decoder
}

// monitorPatience is how long QEMU may take to answer: it answers at once unless the machine under it is overloaded.
const monitorPatience = 30 * time.Second

// greet reads QEMU's greeting and ends the negotiation of capabilities.
func (q *monitor) greet() error {
	var greeting struct{ QMP json.RawMessage }
	if err := q.conn.SetDeadline(time.Now().Add(monitorPatience)); err != nil {
		return err
	}
	if err := q.replies.Decode(&greeting); err != nil {
		return fmt.Errorf("reading QEMU's greeting: %w", err)
	}
	return q.do("qmp_capabilities", nil)
}

// do runs one command and waits for its end.
func (q *monitor) do(command string, arguments map[string]any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.conn.SetDeadline(time.Now().Add(monitorPatience)); err != nil {
		return err
	}
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return fmt.Errorf("telling QEMU to %s: %w", command, err)
	}
	for {
		var reply struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := q.replies.Decode(&reply); err != nil {
			return fmt.Errorf("reading QEMU's answer to %s: %w", command, err)
		}
		switch {
		case reply.Error != nil:
			return fmt.Errorf("QEMU refuses to %s: %s", command, reply.Error.Desc)
		case reply.Return != nil:
			return nil
		} // anything else is an event
	}
}
