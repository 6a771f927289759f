package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// capture is a dumpcap that writes what crosses a segment to a file.
type capture struct {
	process *Process
	path    string

	mu     sync.Mutex
	marks  uint32 // how many markers were sent
	read   int64  // how far the file was searched for markers
	behind []byte // the end of what was searched
}

const (
	// captureFilter leaves bulk data out: a streaming target reads gigabytes.
	captureFilter = "not (tcp and greater 1400)"
	// markerType is the Ethernet type of markers, of those that IEEE 802 leaves for local experiments.
	markerType = 0x88b5
)

// Capture writes everything that crosses the segment from now on, but for full-sized TCP segments, to the file <name>.pcap of the
// lab's folder. It returns when the capture runs. A second call ends the first capture.
//
// Now and then the segment sees a frame of type 0x88b5 with the text "everboot-lab": a marker, by which the lab knows how far the
// file has come.
func (s *Segment) Capture(name string) {
	s.stopCapture()
	c := &capture{path: filepath.Join(s.lab.options.Dir, name+".pcap")}
	c.process = s.lab.start(s.space, s.name, Settings{}, "dumpcap", []string{
		"dumpcap", "-q", "-i", bridgeName, "-P", "-B", "16", "-a", "filesize:500000", "-w", c.path, "-f", captureFilter})
	if err := s.sync(c); err != nil {
		s.lab.fail(fmt.Errorf("capturing on segment %s: %w", s.name, err))
	}
	s.lab.mu.Lock()
	defer s.lab.mu.Unlock()
	s.pcap = c
}

// Captured is the file of the capture, or empty.
func (s *Segment) Captured() string {
	if c := s.capture(); c != nil {
		return c.path
	}
	return ""
}

func (s *Segment) capture() *capture {
	s.lab.mu.Lock()
	defer s.lab.mu.Unlock()
	return s.pcap
}

func (s *Segment) stopCapture() {
	if c := s.capture(); c != nil {
		c.process.Kill()
	}
}

// Decoded lets tshark show the frames captured so far that a display filter (of Wireshark; empty: all) selects: one line a frame,
// with the fields named (such as "frame.time_epoch", "dhcp.option.dhcp") separated by tabs, or tshark's summary if there are none.
func (s *Segment) Decoded(filter string, fields ...string) ([]string, error) {
	c := s.capture()
	if c == nil {
		return nil, fmt.Errorf("decoding segment %s: no capture was started", s.name)
	}
	if err := s.sync(c); err != nil {
		return nil, fmt.Errorf("decoding segment %s: %w", s.name, err)
	}
	display := fmt.Sprintf("eth.type != %#x", markerType)
	if filter != "" {
		display = fmt.Sprintf("(%s) and %s", filter, display)
	}
	argv := []string{"-n", "-r", c.path, "-Y", display}
	if len(fields) > 0 {
		argv = append(argv, "-T", "fields")
	}
	for _, f := range fields {
		argv = append(argv, "-e", f)
	}
	var out, complaints bytes.Buffer
	cmd := exec.Command("tshark", argv...)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+s.lab.options.Dir)                // not what this user likes to see
	if err := cmd.Run(); err != nil && !strings.Contains(complaints.String(), "cut short") { // the next frame is being written
		return nil, fmt.Errorf("decoding segment %s: tshark: %w: %s", s.name, err, lastLines(complaints.String(), 3))
	}
	if out.Len() == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), nil
}

// sync returns when everything that has crossed the segment is in the file. A capture that has ended is what it is.
func (s *Segment) sync(c *capture) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	const again = 500 * time.Millisecond // dumpcap writes its buffer out several times a second
	var mark []byte
	var sent time.Time
	return Eventually(peerPatience, "the capture", func() error {
		if !c.process.Running() {
			if mark == nil && c.marks > 0 {
				return nil
			}
			return fmt.Errorf("dumpcap has ended: %s", lastLines(c.process.Log(), 3))
		}
		if time.Since(sent) > again {
			c.marks++
			mark = binary.BigEndian.AppendUint32([]byte("everboot-lab"), c.marks)
			if err := s.space.do(func() error { return sendMarker(mark) }); err != nil {
				return err
			}
			sent = time.Now()
		}
		found, err := c.find(mark)
		if err != nil || found {
			return err
		}
		return errNotYet
	})
}

// find looks for a marker in what has been added to the file since the last look.
func (c *capture) find(mark []byte) (bool, error) {
	f, err := os.Open(c.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err := f.Seek(c.read, io.SeekStart); err != nil {
		return false, err
	}
	fresh, err := io.ReadAll(f)
	if err != nil {
		return false, err
	}
	c.read += int64(len(fresh))
	text := append(c.behind, fresh...)
	c.behind = bytes.Clone(text[max(0, len(text)-len(mark)):])
	return bytes.Contains(text, mark), nil
}

// sendMarker sends a frame from the bridge of the calling thread's namespace to nobody.
func sendMarker(mark []byte) error {
	br, err := net.InterfaceByName(bridgeName)
	if err != nil {
		return fmt.Errorf("finding the bridge: %w", err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	defer unix.Close(fd)
	nobody := []byte{0x02, 0, 0, 0, 0, 0}
	frame := append(append(bytes.Clone(nobody), nobody...), markerType>>8, markerType&0xff)
	frame = append(frame, mark...)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: br.Index}); err != nil {
		return fmt.Errorf("sending a marker: %w", err)
	}
	return nil
}

// frames calls f with each frame that the segment's capture has until now.
func (s *Segment) frames(f func(at time.Time, frame []byte)) error {
	c := s.capture()
	if c == nil {
		return fmt.Errorf("segment %s is not captured", s.name)
	}
	if err := s.sync(c); err != nil {
		return err
	}
	file, err := os.Open(c.path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := eachFrame(file, f); err != nil {
		return fmt.Errorf("reading %s: %w", c.path, err)
	}
	return nil
}

// eachFrame reads a capture file (pcap, little endian, microseconds or nanoseconds). The end of a file that is still being written may be
// half a frame.
func eachFrame(r io.Reader, f func(at time.Time, frame []byte)) error {
	var head [24]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	unit := time.Microsecond
	switch magic := binary.LittleEndian.Uint32(head[:]); magic {
	case 0xa1b2c3d4:
	case 0xa1b23c4d:
		unit = time.Nanosecond
	default:
		return fmt.Errorf("no pcap file: it begins with %x", magic)
	}
	var packet [16]byte
	for {
		if _, err := io.ReadFull(r, packet[:]); err != nil {
			return nil
		}
		b := make([]byte, binary.LittleEndian.Uint32(packet[8:]))
		if _, err := io.ReadFull(r, b); err != nil {
			return nil
		}
		f(time.Unix(int64(binary.LittleEndian.Uint32(packet[:])), int64(binary.LittleEndian.Uint32(packet[4:]))*int64(unit)), b)
	}
}
