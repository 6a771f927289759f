package image_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"everboot/image"
	"everboot/internal/lab"
	"everboot/site"
)

// target is a machine with one disk, as the unit of a target's image sees it: files below a folder.
type target struct {
	t    *testing.T
	dir  string
	disk string // the device's file

	mu      sync.Mutex
	asked   []string
	env     []string
	reply   func(q url.Values) []byte
	url     string
	https   bool // its media have no other login servers
	old     bool // its media name login servers without http://, as they once did
	nowhere bool // the site wants login servers that nobody has
}

func newTarget(t *testing.T) *target {
	m := &target{t: t, dir: t.TempDir()}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	m.url = strings.TrimPrefix(server.URL, "http://")
	m.write("ibft/target0/nic-assoc", "0\n")
	m.write("ibft/target0/ip-addr", m.url+"\n")
	m.write("ibft/ethernet0/mac", "52:54:00:00:00:01\n")
	m.write("mounts", "none /proc proc rw 0 0\n")
	m.write("work/keep", "")
	return m
}

// program is a medium's, of that version, which asks this test.
func (m *target) program(version int) image.Program {
	second := m.url
	if m.https {
		second = "https://" + m.url
	}
	b := site.Bootstrap{
		Version: version, Hosts: []string{fmt.Sprintf("https://boot%d.example.net", version), second}, Site: "berlin", Address: netip.MustParsePrefix("198.18.0.51/24"),
	}
	p := image.Program{Script: b.Script(), About: b.About()}
	if m.old {
		p.Script = strings.ReplaceAll(p.Script, " http://", " ")
	}
	return p
}

func (m *target) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// insert puts a disk into the machine: a partition of it, and how large that is, in sectors.
func (m *target) insert(content []byte, start, size int) {
	m.t.Helper()
	name := "sdb1"
	if size == 12288 {
		name = "sdb"
	}
	m.disk = filepath.Join(m.dir, "dev", name)
	m.write("dev/"+name, string(content))
	m.write("devices/sdb/ro", "0\n")
	m.write("devices/sdb/sdb1/ro", "0\n")
	m.write("devices/sdb/sdb1/uevent", "DEVNAME=sdb1\nPARTNAME=everboot-bdm\n")
	m.write("devices/sdb/sdb1/start", fmt.Sprintln(start))
	m.write("devices/sdb/sdb1/size", fmt.Sprintln(size))
	m.write("block/keep", "")
	for name, to := range map[string]string{"sdb": "../devices/sdb", "sdb1": "../devices/sdb/sdb1"} {
		if err := os.Symlink(to, filepath.Join(m.dir, "block", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			m.t.Fatal(err)
		}
	}
}

// ServeHTTP is the appliance.
func (m *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := r.URL.Query()
	m.asked = append(m.asked, fmt.Sprintf("%s %s %s version %s%s", r.URL.Path, q.Get("medium"), q.Get("bank"), q.Get("version"), q.Get("problem")))
	text := m.reply(q)
	if text == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Write(text)
}

// run runs the unit's program, and returns what it asked and what it said.
func (m *target) run() (asked []string, said string) {
	m.t.Helper()
	text, err := os.ReadFile("vdisk/medium/everboot-medium")
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("unit", strings.NewReplacer("ibft=/sys/firmware/ibft", "ibft="+m.dir+"/ibft", "block=/sys/class/block", "block="+m.dir+"/block",
		"\ndev=/dev\n", "\ndev="+m.dir+"/dev\n", "/proc/mounts", m.dir+"/mounts").Replace(string(text)))
	m.asked = nil
	cmd := exec.Command("sh", filepath.Join(m.dir, "unit"))
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+filepath.Join(m.dir, "work"), "LC_ALL=C")
	cmd.Env = append(cmd.Env, m.env...)
	out, err := cmd.CombinedOutput()
	return m.asked, fmt.Sprintf("%s(%v)", out, err)
}

func (m *target) content() []byte {
	m.t.Helper()
	b, err := os.ReadFile(m.disk)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// renews answers as an appliance does that wants a program.
func renews(p image.Program) func(q url.Values) []byte {
	return func(q url.Values) []byte {
		if q.Get("problem") != "" {
			return nil
		}
		text, err := p.Renew(q.Get("bank"), q.Get("digest"), fmt.Sprintf("&version=%s&site=%s&address=%s", q.Get("version"), q.Get("site"), q.Get("address")))
		if err != nil {
			panic(err)
		}
		return text
	}
}

// medium is a whole medium with a program, made of Debian's loaders.
func medium(t *testing.T, p image.Program) []byte {
	t.Helper()
	loaders, err := image.FindLoaders(nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.NewMedium(image.MediumConfig{Program: p, Loaders: loaders})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func needUnit(t *testing.T) {
	t.Helper()
	if !lab.Wanted() {
		t.Skip("needs EVERBOOT_LAB=1: it wants busybox and Debian's boot loaders")
	}
	lab.Need(t, "busybox", "dd", "sha256sum")
}

// TestLabUnitRenewsAMedium: the unit writes both programs of a medium, says which version it has then, and has nothing to do the next time. A third version goes over the first.
func TestLabUnitRenewsAMedium(t *testing.T) {
	needUnit(t)
	for name, old := range map[string]bool{"of today": false, "without schemes": true} {
		t.Run(name, func(t *testing.T) { renewTwice(t, old) })
	}
}

func renewTwice(t *testing.T, old bool) {
	m := newTarget(t)
	m.old = old
	m.insert(medium(t, m.program(1)), 2048, 12288)
	banks := "ab"
	for version := 2; version <= 3; version++ {
		m.reply = renews(m.program(version))
		asked, said := m.run()
		const path = "/bdm/52:54:00:00:00:01/next"
		want := []string{
			fmt.Sprintf("%s sdb %c version %d", path, banks[0], version-1), fmt.Sprintf("%s sdb %c version %d", path, banks[0], version-1), // the new login server is tried
			fmt.Sprintf("%s sdb %c version %d", path, banks[1], version),
			fmt.Sprintf("%s sdb-uefi %c version %d", path, banks[0], version-1), fmt.Sprintf("%s sdb-uefi %c version %d", path, banks[0], version-1),
			fmt.Sprintf("%s sdb-uefi %c version %d", path, banks[1], version),
		}
		if !slices.Equal(asked, want) || strings.Count(said, fmt.Sprintf("is written: version=%d", version)) != 2 || !strings.HasSuffix(said, "(<nil>)") {
			t.Errorf("asked %q, want %q; said %s", asked, want, said)
		}
		disk := &fileDisk{m.content()}
		if changed, err := image.UpdateMedium(disk, image.MediumSize, m.program(version)); err != nil || changed {
			t.Errorf("the medium is not what everboot itself would make of it: %v, %v", changed, err)
		}
		if asked, said := m.run(); len(asked) != 2 || said != "(<nil>)" {
			t.Errorf("once more: asked %q, said %s", asked, said)
		}
		banks = "ba"
	}
}

// TestLabUnitRenewsAPartition does the same to a boot partition, of which the unit may be killed before and after each thing that it writes: the old program is there
// as a whole, or the new one, and the next run ends what was begun.
func TestLabUnitRenewsAPartition(t *testing.T) {
	needUnit(t)
	for kill := range 4 {
		t.Run(fmt.Sprint(kill), func(t *testing.T) {
			t.Parallel()
			m := newTarget(t)
			fat := medium(t, m.program(1))[1<<20 : 7<<20]
			m.insert(append(fat[:len(fat):len(fat)], make([]byte, 2<<20)...), 32768, 16384)
			m.reply = renews(m.program(2))
			dd, err := exec.LookPath("dd")
			if err != nil {
				t.Fatal(err)
			}
			// dd, which counts what it writes. The shell that runs it is killed before write number kill/2, or after it.
			m.write("bin/dd", fmt.Sprintf("#!/bin/sh\ncase \"$*\" in\n*of=*)\necho >>%[1]s/writes\nn=$(wc -l <%[1]s/writes)\n[ $n = %[2]d ] && kill -9 $PPID\n%[3]s \"$@\"\n[ $n = %[4]d ] && kill -9 $PPID\nexit 0\n;;\nesac\nexec %[3]s \"$@\"\n",
				m.dir, map[bool]int{true: kill/2 + 1}[kill%2 == 0], dd, kill/2+1))
			if err := os.Chmod(filepath.Join(m.dir, "bin/dd"), 0o755); err != nil {
				t.Fatal(err)
			}
			m.env = []string{"PATH=" + filepath.Join(m.dir, "bin") + ":" + os.Getenv("PATH")}
			asked, said := m.run()
			if len(asked) != 2 || !strings.Contains(said, "killed") {
				t.Fatalf("it was not killed: asked %q, said %s", asked, said)
			}
			has := func(version int) bool {
				changed, err := image.UpdateMedium(&fileDisk{m.content()}, image.PartitionSize, m.program(version))
				return err == nil && !changed
			}
			if !has(1) && !has(2) {
				t.Error("it has neither the old program nor the new one")
			}
			m.env = nil
			if asked, said := m.run(); !has(2) {
				t.Errorf("the next run: asked %q, said %s", asked, said)
			}
		})
	}
}

// fileDisk is a medium in memory.
type fileDisk struct{ data []byte }

func (d *fileDisk) ReadAt(b []byte, at int64) (int, error)  { return copy(b, d.data[at:]), nil }
func (d *fileDisk) WriteAt(b []byte, at int64) (int, error) { return copy(d.data[at:], b), nil }
func (d *fileDisk) Sync() error                             { return nil }

// TestLabUnitLeavesTheRestAlone: not a byte is written of what is no medium, of a medium that may not be written, or when the answer is not whole.
func TestLabUnitLeavesTheRestAlone(t *testing.T) {
	needUnit(t)
	foreign := bytes.Repeat([]byte{0xa5, 0x5a, 0x0a}, 8<<20/3)
	for name, c := range map[string]struct {
		content func(whole []byte) []byte
		size    int // of the partition, in sectors
		change  func(m *target)
		spoil   func(text []byte) []byte
		asked   string // the last question; empty: none
	}{
		"somebody else's partition of our name": {func([]byte) []byte { return foreign }, 16384, nil, nil, ""},
		"a partition of another size":           {nil, 16385, nil, nil, ""},
		"a slot that is not at a sector":        {func(w []byte) []byte { return append([]byte("\n"), w[:len(w)-1]...) }, 16384, nil, nil, ""},
		"read-only":                             {nil, 12288, func(m *target) { m.write("devices/sdb/ro", "1\n") }, nil, "version 1read-only"},
		"mounted":                               {nil, 12288, func(m *target) { m.write("mounts", "/dev/sdb1 /mnt vfat rw 0 0\n") }, nil, "version 1mounted"},
		"in use":                                {nil, 12288, func(m *target) { m.write("devices/sdb/sdb1/holders/dm-0", "") }, nil, "version 1in-use"},
		"HTTPS alone":                           {nil, 12288, func(m *target) { m.https = true; m.insert(medium(t, m.program(1)), 2048, 12288) }, nil, "version 1https"},
		"login servers that do not answer":      {nil, 12288, func(m *target) { m.nowhere = true }, nil, "version 1unreachable"},
		"another partition is mounted": {nil, 16384, func(m *target) {
			m.write("devices/sdb/sdb1/partition", "1\n")
			m.write("mounts", "/dev/sdb1 /mnt vfat rw 0 0\n/dev/sdb11 /x vfat rw 0 0\n")
		}, nil, "version 1mounted"},
		"an answer that breaks off":   {nil, 12288, nil, func(b []byte) []byte { return b[:len(b)-512] }, "version 1"},
		"an answer with a wrong byte": {nil, 12288, nil, func(b []byte) []byte { b[4000]++; return b }, "version 1"},
		"an answer that is no head":   {nil, 12288, nil, func(b []byte) []byte { b[1]++; return b }, "version 1"},
		"an answer over the bank in use": {nil, 12288, nil, func(b []byte) []byte {
			text := bytes.Replace(b, []byte("bank=b"), []byte("bank=a"), 1)
			return bytes.ReplaceAll(text, []byte("goto bank-b"), []byte("goto bank-a"))
		}, "version 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newTarget(t)
			content := medium(t, m.program(1))
			if c.content != nil {
				content = c.content(content)
			}
			m.insert(content, 2048, c.size)
			if c.change != nil {
				c.change(m)
			}
			m.reply = func(q url.Values) []byte {
				q.Del("problem") // it answers none the less
				p := m.program(2)
				if m.nowhere {
					p.Script = strings.Replace(p.Script, "set s1 http://"+m.url, "set s1 http://127.0.0.1:1", 1)
				}
				text := renews(p)(q)
				if c.spoil != nil {
					text = c.spoil(text)
				}
				return text
			}
			before := sha256.Sum256(m.content())
			asked, said := m.run()
			if len(asked) == 0 != (c.asked == "") || len(asked) > 0 && !strings.HasSuffix(asked[len(asked)-1], c.asked) {
				t.Errorf("asked %q, said %s", asked, said)
			}
			if sha256.Sum256(m.content()) != before {
				t.Errorf("it was written; said %s", said)
			}
		})
	}
}
