package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"
)

const (
	sectorSize = 512
	// alignment of partitions: 1 MiB suits every disk, and leaves the first MiB to the table and boot code.
	alignment = 1 << 20
	// gptEntries and gptEntrySize are what UEFI 2.10 §5.3.1 asks for at least: 128 entries of 128 bytes.
	gptEntries   = 128
	gptEntrySize = 128
	// gptSectors is a header and its entries.
	gptSectors = 1 + gptEntries*gptEntrySize/sectorSize
)

// guid is a GUID as it stands on disk: the first three fields are little-endian (UEFI 2.10 appendix A).
type guid [16]byte

// The types of partitions (UEFI 2.10 §5.3.3; the Discoverable Partitions Specification; GRUB's manual).
const (
	typeLinux    = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	typeESP      = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeBIOSBoot = "21686148-6449-6e6f-744e-656564454649"
)

// parseGUID reads the usual text form.
func parseGUID(text string) (guid, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		return guid{}, fmt.Errorf("%q is not a GUID", text)
	}
	g := guid(b)
	g[0], g[1], g[2], g[3] = b[3], b[2], b[1], b[0]
	g[4], g[5] = b[5], b[4]
	g[6], g[7] = b[7], b[6]
	return g, nil
}

// guidOf makes a GUID out of texts: equal inputs give equal disks. It has the form of a version 8 UUID (RFC 9562 §5.8).
func guidOf(texts ...string) guid {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	g := guid(sum[:16])
	g[7] = g[7]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return g
}

// String returns the usual text form.
func (g guid) String() string {
	return fmt.Sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x",
		g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8:10], g[10:])
}

// gptPartition is one entry of a GPT. Start and size are in bytes, and multiples of alignment.
type gptPartition struct {
	kind  string
	id    guid
	name  string // at most 36 UTF-16 units
	start int64
	size  int64
}

// layOut sets the start of each partition, one behind the other, and returns the size of the disk.
func layOut(partitions []gptPartition) int64 {
	at := int64(alignment)
	for i := range partitions {
		partitions[i].start = at
		at += roundUp(partitions[i].size, alignment)
	}
	return at + alignment // room for the backup table
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

var errGPT = errors.New("laying out a partition table")

// gptTables returns the first and the last sectors of a disk of that size: protective MBR with table, and the backup.
func gptTables(disk guid, size int64, partitions []gptPartition) (head, tail []byte, err error) {
	if size%sectorSize != 0 || len(partitions) > gptEntries {
		return nil, nil, fmt.Errorf("%w: %d partitions on %d bytes", errGPT, len(partitions), size)
	}
	entries := make([]byte, gptEntries*gptEntrySize)
	end := int64(alignment)
	for i, p := range partitions {
		if p.start < end || p.size <= 0 || p.start+p.size > size-gptSectors*sectorSize {
			return nil, nil, fmt.Errorf("%w: partition %s does not fit", errGPT, p.name)
		}
		if err := p.put(entries[i*gptEntrySize:]); err != nil {
			return nil, nil, err
		}
		end = p.start + p.size
	}
	last := uint64(size/sectorSize - 1)
	head = append(protectiveMBR(last), gptHeader(disk, 1, last, 2, last, entries)...)
	head = append(head, entries...)
	tail = append(bytes.Clone(entries), gptHeader(disk, last, 1, last-gptSectors+1, last, entries)...)
	return head, tail, nil
}

// put writes the entry (UEFI 2.10 §5.3.3).
func (p gptPartition) put(b []byte) error {
	kind, err := parseGUID(p.kind)
	if err != nil {
		return err
	}
	name := utf16.Encode([]rune(p.name))
	if len(name) > 36 {
		return fmt.Errorf("%w: the name %s is longer than 36", errGPT, p.name)
	}
	copy(b[0:], kind[:])
	copy(b[16:], p.id[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(p.start/sectorSize))
	binary.LittleEndian.PutUint64(b[40:], uint64((p.start+roundUp(p.size, sectorSize))/sectorSize-1))
	for i, unit := range name {
		binary.LittleEndian.PutUint16(b[56+2*i:], unit)
	}
	return nil
}

// gptHeader returns one sector (UEFI 2.10 §5.3.2).
func gptHeader(disk guid, own, other, entriesAt, last uint64, entries []byte) []byte {
	b := make([]byte, sectorSize)
	copy(b, "EFI PART")
	le := binary.LittleEndian
	le.PutUint32(b[8:], 0x10000) // revision 1.0
	le.PutUint32(b[12:], 92)     // size of the header
	le.PutUint64(b[24:], own)
	le.PutUint64(b[32:], other)
	le.PutUint64(b[40:], 1+gptSectors)    // first usable sector
	le.PutUint64(b[48:], last-gptSectors) // last usable sector
	copy(b[56:], disk[:])
	le.PutUint64(b[72:], entriesAt)
	le.PutUint32(b[80:], gptEntries)
	le.PutUint32(b[84:], gptEntrySize)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:92])) // while its own field is zero
	return b
}

// protectiveMBR returns the sector that tells older programs that the whole disk is in use (UEFI 2.10 §5.2.3).
func protectiveMBR(last uint64) []byte {
	b := make([]byte, sectorSize)
	e := b[446:]
	copy(e[1:], []byte{0x00, 0x02, 0x00}) // CHS of sector 1
	e[4] = 0xee
	copy(e[5:], []byte{0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(last, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}
