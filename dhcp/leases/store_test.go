package leases

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
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
	if err := s.Commit(append(want, lease(12, 3))); err != nil {
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
	if err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("read back %+v, %v", list, err)
	}
	s.Close()
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
		l.Address = nth(i)
		list = append(list, l)
	}
	if err := s.Commit(list); err != nil {
		t.Fatal(err)
	}
	s.Close()
	return path
}

func TestDamagedFile(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string, b []byte){
		"text": func(t *testing.T, path string, _ []byte) {
			write(t, path, []byte(strings.Repeat("not a database\n", 1000)))
		},
		"cut to a page and a half": func(t *testing.T, path string, b []byte) { write(t, path, b[:6000]) },
		"cut in the middle":        func(t *testing.T, path string, b []byte) { write(t, path, b[:len(b)/8]) },
		"zeros after the header": func(t *testing.T, path string, b []byte) {
			clear(b[8192:])
			write(t, path, b)
		},
		"noise after the header": func(t *testing.T, path string, b []byte) {
			for i := range b[8192:] {
				b[8192+i] = byte(i * 31)
			}
			write(t, path, b)
		},
		"a lease that is none": func(t *testing.T, path string, _ []byte) {
			db, err := bolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketLeases).Put([]byte("key"), []byte("value")) }); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := fill(t)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, path, b)
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
}

func TestOtherFormatAndNoRight(t *testing.T) {
	path := fill(t)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte{0, 0, 0, 9}) }); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("a file of another format: %v", err)
	}
	if _, _, err := Open(t.TempDir()); err == nil || strings.Contains(err.Error(), "damaged") {
		t.Errorf("a folder: %v", err)
	}
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
					list[j].Address = nth(i * 7919 % 65536)
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
