package health

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	pin "github.com/pin/tftp/v3"
)

// Verify says what is wrong with a file that was fetched; nil means nothing.
type Verify func(data []byte) error

// Contains wants a text somewhere in the file.
func Contains(text string) Verify {
	return func(data []byte) error {
		if !bytes.Contains(data, []byte(text)) {
			return fmt.Errorf("%d bytes without %q", len(data), text)
		}
		return nil
	}
}

// SHA256 wants a file of that size and sum.
func SHA256(size int64, sum [sha256.Size]byte) Verify {
	return func(data []byte) error {
		if int64(len(data)) != size {
			return fmt.Errorf("%d bytes, want %d", len(data), size)
		}
		if got := sha256.Sum256(data); got != sum {
			return fmt.Errorf("SHA-256 %s…, want %s…", hex.EncodeToString(got[:4]), hex.EncodeToString(sum[:4]))
		}
		return nil
	}
}

const (
	// maxFetch bounds what a probe takes into memory.
	maxFetch = 16 << 20
	// probeBlock is what EDK2 asks for.
	probeBlock = 1468
	// probeTries within the time-out: one lost packet does not fail a probe.
	probeTries = 3
)

// TFTP returns a probe that reads a file as firmware does: with its size asked for, in blocks of 1468 bytes. It may outlast its context by
// one packet's time-out, a third of the whole.
func TFTP(server netip.AddrPort, file string, verify Verify) func(context.Context) error {
	return func(ctx context.Context) error {
		client, err := pin.NewClient(server.String())
		if err != nil {
			return err
		}
		left := DefaultTimeout
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		client.SetTimeout(max(left/probeTries, time.Millisecond)) // 0 would mean 5 s
		client.SetRetries(probeTries - 1)
		client.SetBackoff(func(int) time.Duration { return 0 })
		client.SetBlockSize(probeBlock)
		client.RequestTSize(true)
		if err := fetchTFTP(ctx, client, file, verify); err != nil {
			return fmt.Errorf("reading %s by TFTP from %s: %w", file, server, err)
		}
		return nil
	}
}

func fetchTFTP(ctx context.Context, client *pin.Client, file string, verify Verify) error {
	transfer, err := client.Receive(file, "octet")
	if err != nil {
		return err
	}
	size, sized := int64(0), false
	if t, ok := transfer.(pin.IncomingTransfer); ok {
		size, sized = t.Size()
	}
	w := &bounded{ctx: ctx}
	if _, err := transfer.WriteTo(w); err != nil {
		return err
	}
	if sized && size != int64(w.Len()) {
		return fmt.Errorf("%d bytes came, %d were promised", w.Len(), size)
	}
	return verify(w.Bytes())
}

// bounded is a buffer that ends a transfer when ctx ends or too much comes.
type bounded struct {
	bytes.Buffer
	ctx context.Context // pin/tftp knows none
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.Len()+len(p) > maxFetch {
		return 0, errors.New("larger than 16 MiB")
	}
	return b.Buffer.Write(p)
}
