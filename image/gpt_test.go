package image

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

func TestGUIDsReadAndWriteTheUsualForm(t *testing.T) {
	for _, text := range []string{typeLinux, typeESP, typeBIOSBoot} {
		g, err := parseGUID(text)
		if err != nil || g.String() != text {
			t.Errorf("parseGUID(%s) = %s, %v", text, g, err)
		}
	}
	for _, text := range []string{"", "0fc63daf", strings.Repeat("x", 36)} {
		if _, err := parseGUID(text); err == nil {
			t.Errorf("parseGUID(%q) passes", text)
		}
	}
	first, second := guidOf("a", "b"), guidOf("a", "b")
	if first == guidOf("ab") || first != second {
		t.Error("guidOf must depend on its words, and on nothing else")
	}
	if v := guidOf("a").String(); v[14] != '8' {
		t.Errorf("guidOf = %s, which is no version 8", v)
	}
}

func TestGPTRefusesWhatDoesNotFit(t *testing.T) {
	good := gptPartition{kind: typeLinux, name: "p", start: alignment, size: alignment}
	change := func(f func(*gptPartition)) []gptPartition { p := good; f(&p); return []gptPartition{p} }
	tests := []struct {
		name       string
		size       int64
		partitions []gptPartition
		ok         bool
	}{
		{"one that fits", 4 << 20, []gptPartition{good}, true},
		{"over the first table", 4 << 20, change(func(p *gptPartition) { p.start = 4096 }), false},
		{"over the backup", 2 << 20, []gptPartition{good}, false},
		{"over its neighbour", 4 << 20, []gptPartition{good, good}, false},
		{"empty", 4 << 20, change(func(p *gptPartition) { p.size = 0 }), false},
		{"a long name", 4 << 20, change(func(p *gptPartition) { p.name = strings.Repeat("n", 37) }), false},
		{"a wrong type", 4 << 20, change(func(p *gptPartition) { p.kind = "linux" }), false},
		{"half a sector", 4<<20 + 1, []gptPartition{good}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := gptTables(guid{}, tt.size, tt.partitions); (err == nil) != tt.ok {
				t.Errorf("gptTables: %v", err)
			}
		})
	}
}

func TestBothHeadersOfAGPTSayTheSame(t *testing.T) {
	parts := []gptPartition{{kind: typeLinux, name: "p", size: 3 << 20}}
	size := layOut(parts)
	head, tail, err := gptTables(guidOf("disk"), size, parts)
	if err != nil {
		t.Fatal(err)
	}
	if len(head) != 34*sectorSize || len(tail) != 33*sectorSize || size != 5<<20 {
		t.Fatalf("tables of %d and %d bytes, disk of %d", len(head), len(tail), size)
	}
	first, backup := head[sectorSize:2*sectorSize], tail[len(tail)-sectorSize:]
	last := uint64(size/sectorSize - 1)
	for _, h := range []struct {
		name             string
		b                []byte
		own, other, list uint64
	}{{"first", first, 1, last, 2}, {"backup", backup, last, 1, last - 32}} {
		le := binary.LittleEndian
		if le.Uint64(h.b[24:]) != h.own || le.Uint64(h.b[32:]) != h.other || le.Uint64(h.b[72:]) != h.list {
			t.Errorf("the %s header names itself at %d, the other at %d, the entries at %d", h.name, le.Uint64(h.b[24:]), le.Uint64(h.b[32:]), le.Uint64(h.b[72:]))
		}
		blank := bytes.Clone(h.b[:92])
		clear(blank[16:20])
		if le.Uint32(h.b[16:]) != crc32.ChecksumIEEE(blank) {
			t.Errorf("the %s header's checksum is wrong", h.name)
		}
	}
	if !bytes.Equal(head[2*sectorSize:], tail[:32*sectorSize]) {
		t.Error("the entries differ")
	}
}

// TestAForeignReaderSeesThePartitions writes a disk and reads it with go-diskfs.
func TestAForeignReaderSeesThePartitions(t *testing.T) {
	path := filepath.Join(t.TempDir(), DiskFile)
	text := append(bytes.Repeat([]byte{0}, 8192), "everboot"...)
	err := writeDisk(path, "seed", nil, []filled{
		{gptPartition{kind: typeLinux, name: "everboot-root", size: 5000}, func(w io.Writer) error { _, err := w.Write([]byte("root")); return err }},
		{gptPartition{kind: typeLinux, name: "data", size: 1 << 20}, func(w io.Writer) error { _, err := w.Write(text); return err }},
		{gptPartition{kind: typeLinux, name: "empty", size: 1 << 20}, nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	disk, err := diskfs.Open(path, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	found, err := disk.GetPartitionTable()
	if err != nil {
		t.Fatal(err)
	}
	table, ok := found.(*gpt.Table)
	if !ok {
		t.Fatalf("the table is a %T", found)
	}
	want := []struct {
		name       string
		start, end uint64
	}{{"everboot-root", 2048, 2057}, {"data", 4096, 6143}, {"empty", 6144, 8191}}
	for i, w := range want {
		p := table.Partitions[i]
		if p.Name != w.name || p.Start != w.start || p.End != w.end || !strings.EqualFold(string(p.Type), typeLinux) {
			t.Errorf("partition %d is %+v, want %+v", i, p, w)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(raw[2<<20:], text) || !bytes.HasPrefix(raw[1<<20:], []byte("root\x00")) {
		t.Error("the content of a partition is not where it belongs")
	}
	if raw[510] != 0x55 || raw[511] != 0xaa || raw[450] != 0xee {
		t.Error("the disk has no protective MBR")
	}
}

func TestContentLargerThanItsPartitionIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), DiskFile)
	err := writeDisk(path, "seed", nil, []filled{{gptPartition{kind: typeLinux, name: "p", size: 4096},
		func(w io.Writer) error { _, err := w.Write(make([]byte, 2<<20)); return err }}})
	if err == nil || !strings.Contains(err.Error(), "partition p") {
		t.Errorf("got %v", err)
	}
}
