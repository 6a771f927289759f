package leases

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStoreKeepsLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "leases.db")
	s, list, err := Open(path)
	if err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	want := []Lease{lease(10, 1), lease(11, 2)}
	for i := range want {
		want[i].State, want[i].Start, want[i].Expires = Bound, epoch, epoch.Add(time.Hour)
	}
	want[1].Client, want[1].Name, want[1].Reserved = "\x00\xff\x80 any bytes", "t1", true
	gone := lease(12, 3)
	gone.State = Bound
	if err := s.Commit(append(want, gone)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete([]netip.Addr{addr(12)}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(path); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, list, err = Open(path)
	slices.SortFunc(list, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	for i := range list {
		list[i].Start, list[i].Expires = list[i].Start.UTC(), list[i].Expires.UTC()
	}
	if err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("read back %+v, %v", list, err)
	}
	s.Close()
}

// TestManyAreDeletedInPieces: what lies more than a chunk behind a record that is not whole makes a file damaged, so no write is longer.
func TestManyAreDeletedInPieces(t *testing.T) {
	s, _, err := Open(filepath.Join(t.TempDir(), "leases.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.direct == nil {
		t.Skip("the file system writes through its cache only")
	}
	var list []netip.Addr
	for i := range 3 * chunk / 14 {
		list = append(list, netip.AddrFrom4([4]byte{198, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if err := s.Delete(list); err != nil {
		t.Fatal(err)
	}
	if n := len(s.direct.buf); n > chunk { // it holds the longest write
		t.Errorf("a write of %d bytes", n)
	}
}

// fill makes a lease file with enough in it to have many pages.
func fill(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "leases.db")
	s, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []Lease
	for i := range 2000 {
		l := lease(0, i)
		l.Address, l.State = nth(i), Bound
		list = append(list, l)
	}
	if err := s.Commit(list); err != nil {
		t.Fatal(err)
	}
	s.Close()
	return path
}

func TestDamagedFile(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"text":           func([]byte) []byte { return []byte(strings.Repeat("not a lease file\n", 1000)) },
		"another format": func(b []byte) []byte { return append([]byte("everboot leases 9\n"), b[len(header):]...) },
		"noise in the middle, and later records": func(b []byte) []byte {
			later := append(b[:len(b)-chunk:len(b)-chunk], make([]byte, 2*chunk)...)
			later = frame(later, recordLease, func(b []byte) []byte { return encode(b, lease(1, 1)) })
			for i := range 1000 {
				later[8192+i] = byte(i * 31)
			}
			return later
		},
		"a lease that is none": func(b []byte) []byte {
			return frame([]byte(header), recordLease, func(b []byte) []byte { return append(b, "\x04abcdvalue"...) })
		},
		"a record of a kind that is none": func(b []byte) []byte {
			return frame([]byte(header), 'X', func(b []byte) []byte { return encode(b, lease(1, 1)) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := fill(t)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, damage(b))
			_, _, err = Open(path)
			if err == nil {
				t.Fatal("opened")
			}
			t.Log(err)
			if !strings.Contains(err.Error(), "move it away") || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error does not say what to do: %v", err)
			}
		})
	}
	if _, _, err := Open(t.TempDir()); err == nil || strings.Contains(err.Error(), "damaged") {
		t.Errorf("a folder: %v", err)
	}
}

// TestALossOfPowerCutsTheLastWriteOnly: wherever the last write was cut short, what was confirmed before is there.
func TestALossOfPowerCutsTheLastWriteOnly(t *testing.T) {
	path := fill(t)
	s, list, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, last := s.end, lease(5, 5)
	last.State = Bound
	if err := s.Commit([]Lease{last, last, last}); err != nil {
		t.Fatal(err)
	}
	end := s.end
	s.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := whole; cut < end; cut += 7 {
		torn := append(slices.Clone(b[:cut]), make([]byte, 4096)...)
		write(t, path, torn)
		s, again, err := Open(path)
		if err != nil || len(again) < len(list) || len(again) > len(list)+1 {
			t.Fatalf("cut at %d of %d: %d of %d leases: %v", cut-whole, end-whole, len(again), len(list), err)
		}
		s.Close()
	}
}

// TestTheFileIsWrittenAnewWhenMostOfItIsOld.
func TestTheFileIsWrittenAnewWhenMostOfItIsOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	s, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]Lease, 2000)
	for i := range list {
		list[i] = lease(0, i)
		list[i].Address, list[i].State, list[i].Start, list[i].Expires = nth(i), Bound, epoch, epoch.Add(time.Hour)
	}
	wrote := int64(0)
	for wrote < compactFrom+4*chunk {
		before := s.end
		if err := s.Commit(list); err != nil {
			t.Fatal(err)
		}
		wrote += max(s.end-before, 0)
	}
	if s.end > compactFrom {
		t.Errorf("the file has %d bytes for 2000 leases", s.end)
	}
	if err := s.SetSynced(epoch); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, again, err := Open(path)
	if err != nil || len(again) != len(list) || !s.Synced().Equal(epoch) {
		t.Errorf("%d leases, synced %v, %v", len(again), s.Synced(), err)
	}
	s.Close()
}

// TestARewriteLastsBeforeTheNextLease: the folder is synced before the first write to a new file; and what a killed rewrite left goes.
func TestARewriteLastsBeforeTheNextLease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	left := filepath.Join(filepath.Dir(path), ".leases.db123")
	write(t, left, nil)
	s, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed rewrite left is still there")
	}
	real, synced := s.syncDir, 0
	s.syncDir = func(string) error { return os.ErrDeadlineExceeded }
	l := state(1, Bound, 0, time.Hour, 1)
	for range 2 {
		if err := s.Commit([]Lease{l}); err == nil {
			t.Fatal("kept in a file that a loss of power takes away")
		}
	}
	s.syncDir = func(path string) error { synced++; return real(path) }
	for range 3 {
		if err := s.Commit([]Lease{l}); err != nil {
			t.Fatal(err)
		}
	}
	if synced != 1 {
		t.Errorf("the folder was synced %d times", synced)
	}
}

// TestARewriteThatFailsLosesNothing: the store goes on with the old file.
func TestARewriteThatFailsLosesNothing(t *testing.T) {
	path := fill(t)
	s, list, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // so that the old file is longer than a new one
		if err := s.Commit(list); err != nil {
			t.Fatal(err)
		}
	}
	open := s.reopen
	s.reopen = func(string) (*os.File, error) { return nil, unix.EMFILE }
	if err := s.rewrite(nil); err == nil {
		t.Fatal("nothing failed")
	}
	s.reopen = open
	if b, err := os.ReadFile(path); err != nil || int64(len(b)) != s.size {
		t.Errorf("the file has %d bytes, the store thinks %d: %v", len(b), s.size, err)
	}
	last := state(1, Bound, 0, time.Hour, 1)
	if err := s.Commit([]Lease{last}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, again, err := Open(path)
	if err != nil || len(again) < len(list) {
		t.Errorf("%d of %d leases: %v", len(again), len(list), err)
	}
	s.Close()
}

func nth(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) }

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkCommit(b *testing.B) {
	s, _, err := Open(filepath.Join(b.TempDir(), "leases.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				list := make([]Lease, n)
				for j := range list {
					list[j] = lease(0, i)
					list[j].Address, list[j].State = nth(i*7919%65536), Bound
					i++
				}
				if err := s.Commit(list); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "leases/s")
		})
	}
}

// TestWritesOfEverySize: records end anywhere in a block, and the file has all of them, whether the file system takes whole blocks past its
// cache or not.
func TestWritesOfEverySize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	s, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.direct == nil {
		t.Log("the file system of the test writes through its cache only")
	}
	n := 0
	for round := range 3 {
		if round == 2 { // what a file system may say at the first write only: it goes on through the cache
			s.direct = nil
		}
		for size := range 120 {
			var list []Lease
			for range 1 + size%40 {
				l := lease(0, n)
				l.Address, l.State, l.Name = nth(n), Bound, strings.Repeat("n", size)
				list, n = append(list, l), n+1
			}
			if err := s.Commit(list); err != nil {
				t.Fatal(err)
			}
		}
		if round == 0 {
			s.Close()
			if s, _, err = Open(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || int64(len(b)) != s.size || s.size%blockSize != 0 {
		t.Errorf("the file has %d bytes, the store thinks %d: %v", len(b), s.size, err)
	}
	s.Close()
	s, list, err := Open(path)
	if err != nil || len(list) != n {
		t.Errorf("%d of %d leases: %v", len(list), n, err)
	}
	s.Close()
}
