package appliance

import (
	"bufio"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"everboot/site"
	"everboot/streamer"
)

// chapFile has the CHAP secrets of devices, one a line: MAC USER SECRET [MUTUAL-USER MUTUAL-SECRET]. It is read again when it has changed.
type chapFile struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	read    fs.FileInfo // of the file when it was read; nil: never
	secrets map[site.MAC]streamer.CHAP
	told    string // what is wrong with the file now, as the log knows it
}

// chapLeast is the length below which a secret can be guessed from one login that was overheard (RFC 7143 §12.1.3: 96 bits).
const chapLeast = 12

// chapStill is how long the file must have been left alone before a change is read: an editor may have emptied it and not written it yet,
// and a device without a line need prove nothing.
const chapStill = time.Second

// load reads the file if it has changed.
func (f *chapFile) load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("reading director.chap: %w", err)
	}
	if f.read != nil && (sameState(info, f.read) || changing(info, time.Now())) {
		return nil
	}
	secrets, err := readCHAP(f.path)
	if err != nil {
		return err
	}
	after, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("reading director.chap: %w", err)
	}
	if f.read == nil || sameState(info, after) { // else it changed meanwhile: the next login reads it
		f.secrets, f.read = secrets, info
	}
	return nil
}

func sameState(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// changing reports whether a file was written to a moment ago.
func changing(info fs.FileInfo, now time.Time) bool {
	age := now.Sub(info.ModTime())
	return age >= 0 && age < chapStill
}

// readCHAP reads a whole file, or nothing of it.
func readCHAP(path string) (map[site.MAC]streamer.CHAP, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading director.chap: %w", err)
	}
	defer file.Close()
	secrets := make(map[site.MAC]streamer.CHAP)
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		mac, chap, err := parseCHAP(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		if !mac.IsZero() {
			secrets[mac] = chap
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading director.chap, %s: %w", path, err)
	}
	return secrets, distinct(secrets)
}

// distinct returns an error if the director would prove itself with a secret that a device has: who asks it for that proof could pass it on
// as the device's.
func distinct(secrets map[site.MAC]streamer.CHAP) error {
	devices := make(map[string]site.MAC, len(secrets))
	for mac, c := range secrets {
		devices[c.Secret] = mac
	}
	for mac, c := range secrets {
		if other, ok := devices[c.MutualSecret]; ok {
			return fmt.Errorf("director.chap: the director's secret for %s is the secret of %s: choose another", mac, other)
		}
	}
	return nil
}

// parseCHAP reads a line. Its errors never show a secret.
func parseCHAP(line string) (site.MAC, streamer.CHAP, error) {
	fields := strings.Fields(line)
	if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
		return site.MAC{}, streamer.CHAP{}, nil
	}
	if len(fields) != 3 && len(fields) != 5 {
		return site.MAC{}, streamer.CHAP{}, fmt.Errorf("%d words: write MAC USER SECRET, and for mutual CHAP also USER SECRET of the director", len(fields))
	}
	mac, err := site.ParseMAC(fields[0])
	c := streamer.CHAP{User: fields[1], Secret: fields[2]}
	if len(fields) == 5 {
		c.MutualUser, c.MutualSecret = fields[3], fields[4]
	}
	switch {
	case err != nil:
	case len(c.Secret) < chapLeast, c.MutualSecret != "" && len(c.MutualSecret) < chapLeast:
		err = fmt.Errorf("a secret of %s is shorter than %d characters", mac, chapLeast)
	case c.Secret == c.MutualSecret:
		err = fmt.Errorf("both secrets of %s are the same: a device could answer with what it hears", mac)
	}
	return mac, c, err
}

// of returns the secrets of a device. After a change that cannot be read the former ones count.
func (f *chapFile) of(mac site.MAC) (streamer.CHAP, bool) {
	err := f.load()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.told = ""
	case err.Error() != f.told:
		f.told = err.Error()
		f.log.Error("the CHAP secrets of before stay, because the new ones cannot be read", "error", err)
	}
	c, ok := f.secrets[mac]
	return c, ok
}
