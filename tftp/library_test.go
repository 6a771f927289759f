package tftp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"everboot/site"
	"everboot/tftp/wire"
)

// idleOwner returns an owner that does not run, and the folder of its files.
func idleOwner(t *testing.T) (*owner, string) {
	t.Helper()
	root := t.TempDir()
	files, err := NewFiles(FilesConfig{Root: root, IPXE: filepath.Join(root, "none")}, func() *site.View { return new(site.View) })
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(Config{}, files, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	own, err := newPortSet()
	if err != nil {
		t.Fatal(err)
	}
	o := newOwner(s, &socket{fd: -1}, own)
	t.Cleanup(func() {
		o.drop()
		own.closeAll()
		s.inbox.close()
		files.Close()
	})
	return o, root
}

// TestColdFileCutShort: a transfer that waits for what a file has no longer does not have it read again and again.
func TestColdFileCutShort(t *testing.T) {
	o, root := idleOwner(t)
	path := filepath.Join(root, "file")
	if err := os.WriteFile(path, make([]byte, 2*smallFile), 0o644); err != nil { // the digester, which does not run, would read it
		t.Fatal(err)
	}
	i, err := o.lib.open("file", wire.Octet)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	tr := &transfer{socket: o.socket, image: i, session: wire.NewAdopted(wire.Terms{Size: i.stamp.size, Block: 1024, Window: 4}, 1024, true)}
	o.enter(tr)
	o.act(tr, tr.session.Step(0, wire.Event{Kind: wire.Adopted}))
	due := tr.session.Deadline()
	for range 3 {
		if len(o.jobs) == 0 {
			break
		}
		o.now += due / 4
		(<-o.jobs)()
		for _, call := range o.s.inbox.take() {
			call(o)
		}
	}
	if len(o.jobs) != 0 || tr.held == 0 || tr.session.Deadline() != due {
		t.Errorf("%d reads wait, the transfer waits for byte %d and until %v; want none, and %v as before", len(o.jobs), tr.held, tr.session.Deadline(), due)
	}
	<-o.lib.queue
	o.lib.release(i) // the digester's
}

// TestTextsAreShared: however many ask for a text in netascii, it is in memory once, and no longer than somebody has it open.
func TestTextsAreShared(t *testing.T) {
	o, root := idleOwner(t)
	path := filepath.Join(root, "text")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	open := func() *image {
		i, err := o.lib.open("text", wire.Netascii)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	write("a\n")
	first, second := open(), open()
	write("other\n")
	third := open()
	if first != second || string(first.data) != "a\r\n" || string(third.data) != "other\r\n" {
		t.Errorf("%p %q, %p %q, then %q", first, first.data, second, second.data, third.data)
	}
	for _, i := range []*image{first, second, third} {
		o.lib.release(i)
	}
	if len(o.lib.images) != 0 {
		t.Errorf("%d texts are kept for nobody", len(o.lib.images))
	}
	write(strings.Repeat("x", maxNetascii+1))
	if _, err := o.lib.open("text", wire.Netascii); !errors.Is(err, errNetasciiSize) {
		t.Errorf("of more than %d bytes: %v", maxNetascii, err)
	}
}

// TestTakeOverWaitsForTheOpeners: a peer's transfer whose file could not be opened at once, because too much waited, is opened later; and one whose file was not there
// is looked for again when its address comes.
func TestTakeOverWaitsForTheOpeners(t *testing.T) {
	o, root := idleOwner(t)
	for len(o.jobs) < cap(o.jobs) {
		o.jobs <- func() {}
	}
	record := wire.Record{Client: netip.MustParseAddrPort("198.18.0.51:2070"), Server: netip.MustParseAddr("198.18.0.10"), Digest: wire.Digest{1}, Size: 2, Block: 512, Window: 1}
	s := &shadow{from: "a", record: record, request: wire.Request{Name: "file", Mode: wire.Octet}}
	o.addShadow(s)
	o.openShadow(s)
	for len(o.jobs) > 0 {
		<-o.jobs
	}
	work := func() {
		for len(o.jobs) > 0 {
			(<-o.jobs)()
		}
		for _, call := range o.s.inbox.take() {
			call(o)
		}
	}
	o.reopen()
	if work(); !s.missing {
		t.Fatal("nobody looked for the file")
	}
	if err := os.WriteFile(filepath.Join(root, "file"), []byte("ab"), 0o644); err != nil {
		t.Fatal(err)
	}
	o.owns(map[[16]byte]bool{record.Server.As16(): true})
	if work(); s.missing || s.image == nil && !s.taken {
		t.Errorf("the file has come, and nobody looked: %+v", s)
	}
}

// TestFilesThatFoundNoReader: transfers of more large files at once than wait for the digester can be handed over, too, when it has come to them.
func TestFilesThatFoundNoReader(t *testing.T) {
	o, root := idleOwner(t)
	if err := os.WriteFile(filepath.Join(root, "file"), make([]byte, 2*smallFile), 0o644); err != nil {
		t.Fatal(err)
	}
	other := inMemory("other", nil, wire.Digest{1})
	for len(o.lib.queue) < cap(o.lib.queue) {
		o.lib.queue <- other
	}
	i, err := o.lib.open("file", wire.Octet)
	if err != nil {
		t.Fatal(err)
	}
	read := func() {
		for len(o.lib.queue) > 0 {
			if next := <-o.lib.queue; next != other {
				o.lib.digest(context.Background(), next)
				o.lib.release(next)
			}
		}
	}
	if read(); i.Digest().Known() {
		t.Fatal("it was read, though there was no room")
	}
	o.forget()
	if read(); !i.Digest().Known() {
		t.Error("nobody reads it: its transfers cannot be handed over")
	}
	if o.forget(); len(o.lib.queue) != 0 {
		t.Error("it is read again")
	}
	o.lib.release(i)
	if len(o.lib.images) != 0 {
		t.Errorf("%d files are kept open for nobody", len(o.lib.images))
	}
}
