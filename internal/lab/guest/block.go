package guest

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// BlockSize is what one read asks for, in bytes: a page, and a multiple of every sector size.
	BlockSize = 4096
	// AreaName is the GPT name of the partition that the guest reads.
	AreaName = "everboot-test"
)

// FillBlock fills buf with the content of the block with that index. Its length should be a multiple of 8.
func FillBlock(index uint64, buf []byte) {
	state := (index + 1) * 0xd1342543de82ef95 // spreads neighbours far apart
	for ; len(buf) >= 8; buf = buf[8:] {
		state += 0x9e3779b97f4a7c15
		binary.LittleEndian.PutUint64(buf, mix(state))
	}
}

// CheckBlock says whether buf holds the block with that index, byte for byte.
func CheckBlock(index uint64, buf []byte) bool {
	state := (index + 1) * 0xd1342543de82ef95
	for ; len(buf) >= 8; buf = buf[8:] {
		state += 0x9e3779b97f4a7c15
		if binary.LittleEndian.Uint64(buf) != mix(state) {
			return false
		}
	}
	return len(buf) == 0
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// WriteArea writes size bytes of blocks, from index 0 on. Size must be a multiple of BlockSize.
func WriteArea(w io.Writer, size int64) error {
	if size%BlockSize != 0 {
		return fmt.Errorf("the size of the test area, %d, is no multiple of %d", size, BlockSize)
	}
	buf := make([]byte, 256*BlockSize)
	for done := int64(0); done < size; {
		part := buf[:min(int64(len(buf)), size-done)]
		for at := 0; at < len(part); at += BlockSize {
			FillBlock(uint64(done+int64(at))/BlockSize, part[at:at+BlockSize])
		}
		n, err := w.Write(part)
		if err != nil {
			return err
		}
		done += int64(n)
	}
	return nil
}
