package tftp

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"everboot/site"
)

// shelf is an appliance's HTTP boot server, which reads files for their digests if reads says so.
type shelf struct {
	*HTTP
	t    *testing.T
	root string
}

func newShelf(t *testing.T, reads bool) shelf {
	root := t.TempDir()
	view := func() *site.View { return new(site.View) }
	files, err := NewFiles(FilesConfig{Root: root, IPXE: "/nowhere"}, view)
	if err != nil {
		t.Fatal(err)
	}
	h, err := NewHTTP(HTTPConfig{}, files, view, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var reader sync.WaitGroup
	if reads {
		reader.Go(func() { files.digests.run(ctx) })
	}
	t.Cleanup(func() {
		stop()
		reader.Wait()
		files.Close()
	})
	return shelf{h, t, root}
}

func (s shelf) put(name string, content []byte, age time.Duration) {
	s.t.Helper()
	path := filepath.Join(s.root, name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
		s.t.Fatal(err)
	}
}

func (s shelf) get(name string, header ...string) (code int, body []byte, tag string) {
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodGet, "/"+name, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.Bytes(), w.Header().Get("ETag")
}

// TestADownloadGoesOnElsewhere: what one appliance began, with the entity tag that it gave, another goes on with, though it got its copy at another time and has
// not read it before; if the content is another one the client gets it from its beginning.
func TestADownloadGoesOnElsewhere(t *testing.T) {
	for _, size := range []int{0, 1, 1000, 3 * smallFile} {
		content := make([]byte, size)
		rand.Read(content)
		a, b, c := newShelf(t, true), newShelf(t, true), newShelf(t, true)
		a.put("file", content, time.Hour)
		b.put("file", content, time.Minute)
		c.put("file", append([]byte("more"), content...), time.Hour)
		code, body, tag := a.getRead("file")
		if code != http.StatusOK || !bytes.Equal(body, content) || len(tag) != 34 {
			t.Fatalf("%d bytes: %d, %d bytes, tag %s", size, code, len(body), tag)
		}
		if code, _, again := b.get("file", "If-None-Match", tag); code != http.StatusNotModified || again != tag {
			t.Errorf("%d bytes: %d elsewhere, tag %s, want %s", size, code, again, tag)
		}
		if size < 2 {
			continue
		}
		if code, body, _ := newShelfWith(t, content).get("file", "Range", "bytes=7-", "If-Range", tag); code != http.StatusPartialContent || !bytes.Equal(body, content[7:]) {
			t.Errorf("%d bytes: it goes on with %d, %d bytes", size, code, len(body))
		}
		if code, body, _ := c.get("file", "Range", "bytes=7-", "If-Range", tag); code != http.StatusOK || len(body) != size+4 {
			t.Errorf("%d bytes: of another content it gets %d, %d bytes", size, code, len(body))
		}
	}
}

// getRead gets a file when it has been read.
func (s shelf) getRead(name string) (code int, body []byte, tag string) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && len(tag) != 34; time.Sleep(time.Millisecond) {
		code, body, tag = s.get(name)
	}
	return code, body, tag
}

func newShelfWith(t *testing.T, content []byte) shelf {
	s := newShelf(t, true)
	s.put("file", content, time.Second)
	return s
}

// TestATagFromBeforeTheFileWasRead counts for as long as the file is the same, and who has none does not wait for the reader.
func TestATagFromBeforeTheFileWasRead(t *testing.T) {
	s, content := newShelf(t, false), make([]byte, 2*smallFile)
	s.put("file", content, time.Hour)
	began := time.Now()
	_, _, weak := s.get("file", "Range", "bytes=7-")
	_, _, _ = s.get("file")
	if took := time.Since(began); took >= resumePatience {
		t.Errorf("they waited for %v", took)
	}
	ctx, stop := context.WithCancel(t.Context())
	var reader sync.WaitGroup
	reader.Go(func() { s.files.digests.run(ctx) })
	defer reader.Wait()
	defer stop()
	_, _, tag := s.getRead("file")
	if tag == weak || len(tag) != 34 {
		t.Fatalf("the tags are %s, %s", weak, tag)
	}
	for _, given := range []string{weak, tag} {
		if code, body, now := s.get("file", "Range", "bytes=7-", "If-Range", given); code != http.StatusPartialContent || len(body) != len(content)-7 || now != given {
			t.Errorf("with %s: %d, %d bytes, tag %s", given, code, len(body), now)
		}
	}
	s.put("file", content[1:], time.Minute)
	for _, given := range []string{weak, tag} {
		if code, body, _ := s.get("file", "Range", "bytes=7-", "If-Range", given); code != http.StatusOK || len(body) != len(content)-1 {
			t.Errorf("with %s of the file before: %d, %d bytes", given, code, len(body))
		}
	}
}

// TestManyFilesToRead: what no place is left for has its own tag, and no file stays open.
func TestManyFilesToRead(t *testing.T) {
	s := newShelf(t, false)
	for range digestQueue + 5 {
		s.put("file", make([]byte, smallFile+1), time.Hour) // each time in another state
		if code, _, tag := s.get("file", "Range", "bytes=0-0"); code != http.StatusPartialContent || tag == "" {
			t.Fatalf("%d, tag %q", code, tag)
		}
	}
	if d := s.files.digests; len(d.queue) != digestQueue || len(d.under) != digestQueue {
		t.Errorf("%d wait, %d are under way", len(d.queue), len(d.under))
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for d := s.files.digests; len(d.queue) > 0; {
		d.run(ctx)
	}
	if len(s.files.digests.under) != 0 {
		t.Errorf("%d are left", len(s.files.digests.under))
	}
}
