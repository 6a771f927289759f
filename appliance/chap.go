package appliance

import (
	"bufio"
	"fmt"
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

	mu      sync.Mutex
	read    time.Time // the file's time when it was read
	secrets map[site.MAC]streamer.CHAP
}

// chapLeast is the length below which a secret can be guessed from one login that was overheard (RFC 7143 §12.1.3: 96 bits).
const chapLeast = 12

// load reads the file if it has changed.
func (f *chapFile) load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("reading director.chap: %w", err)
	}
	if info.ModTime().Equal(f.read) {
		return nil
	}
	file, err := os.Open(f.path)
	if err != nil {
		return fmt.Errorf("reading director.chap: %w", err)
	}
	defer file.Close()
	secrets := make(map[site.MAC]streamer.CHAP)
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		mac, chap, err := parseCHAP(lines.Text())
		if err != nil {
			return fmt.Errorf("%s, line %d: %w", f.path, n, err)
		}
		if !mac.IsZero() {
			secrets[mac] = chap
		}
	}
	f.secrets, f.read = secrets, info.ModTime()
	return lines.Err()
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
	_ = f.load() // check and start say what is wrong with it
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.secrets[mac]
	return c, ok
}
