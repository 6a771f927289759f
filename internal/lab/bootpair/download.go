package bootpair

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// downloadTimeout is how long a client reads a file over HTTP at most.
const downloadTimeout = 120 * time.Second

// Download reads the file from the floating address with curl, which goes on with a range from where it was whenever a connection ends, and calls
// move once half of size bytes have come; nil: nothing moves. args are more of curl's. It returns how long that took, how often curl was started, and the digest.
func (p *Pair) Download(size int64, move func() error, args ...string) (took time.Duration, starts int, sum [sha256.Size]byte, err error) {
	out, err := os.CreateTemp(p.Lab.Dir(), "download-")
	if err != nil {
		return 0, 0, sum, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	ctx, cancel := context.WithTimeout(context.Background(), downloadTimeout)
	defer cancel()
	began, moved := time.Now(), make(chan error, 1)
	go func() {
		if move == nil {
			moved <- nil
			return
		}
		moved <- errors.Join(awaitSize(ctx, out, size/2), move())
	}()
	url := "http://" + VIP + "/" + FileName
	for starts = 1; ; starts++ {
		var text string
		// Connecting may meet the moment in which nobody has the address: the kernel alone would try again after a second.
		text, err = p.Client.Run(ctx, append([]string{"curl", "-sSf", "--connect-timeout", "0.2", "-C", "-", "-o", out.Name(), url}, args...)...)
		if err == nil || ctx.Err() != nil {
			break
		}
		if info, statErr := out.Stat(); statErr != nil || info.Size() == 0 {
			err = fmt.Errorf("%w: %s", err, text)
			break
		}
	}
	took = time.Since(began)
	if err = errors.Join(err, <-moved); err != nil {
		return took, starts, sum, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(out, 0, size+1)); err != nil {
		return took, starts, sum, err
	}
	return took, starts, [sha256.Size]byte(h.Sum(nil)), nil
}

// Tag returns the entity tag under which an address serves the file.
func (p *Pair) Tag(address string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), downloadTimeout)
	defer cancel()
	text, err := p.Client.Run(ctx, "curl", "-sSfI", "http://"+address+"/"+FileName)
	for line := range strings.Lines(text) {
		if name, value, _ := strings.Cut(line, ":"); err == nil && strings.EqualFold(name, "ETag") {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("asking %s for its file's entity tag: %w: %s", address, errors.Join(err, errors.New("there is none")), text)
}

// awaitSize waits until a file has so many bytes.
func awaitSize(ctx context.Context, f *os.File, size int64) error {
	for {
		info, err := f.Stat()
		if err != nil || info.Size() >= size {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the file has %d bytes, not %d: %w", info.Size(), size, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}
