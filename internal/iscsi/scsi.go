package iscsi

import (
	"encoding/binary"
	"fmt"
)

// SCSIError is a command that a target refused (SAM-4 §5.3, SPC-4 §4.5).
type SCSIError struct {
	Status         byte // 0x02: CHECK CONDITION
	Key, ASC, ASCQ byte // sense
}

// The sense keys that callers look at.
const (
	SenseUnitAttention byte = 0x06 // the first command of a session is told that the device was reset
	SenseDataProtect   byte = 0x07 // a write to what is read-only
)

// Error returns the codes in hexadecimal.
func (e *SCSIError) Error() string {
	return fmt.Sprintf("SCSI status 0x%02x, sense %x/%02x/%02x", e.Status, e.Key, e.ASC, e.ASCQ)
}

// parseSense reads the sense of a SCSI response's data segment: a length of two bytes, then fixed or descriptor format.
func parseSense(status byte, data []byte) *SCSIError {
	e := &SCSIError{Status: status}
	if len(data) < 2 {
		return e
	}
	n := int(binary.BigEndian.Uint16(data))
	sense := data[2:]
	sense = sense[:min(n, len(sense))]
	switch {
	case len(sense) >= 14 && sense[0]&0x7f <= 0x71:
		e.Key, e.ASC, e.ASCQ = sense[2]&0x0f, sense[12], sense[13]
	case len(sense) >= 4 && sense[0]&0x7f >= 0x72:
		e.Key, e.ASC, e.ASCQ = sense[1]&0x0f, sense[2], sense[3]
	}
	return e
}

// Command is a SCSI command with data in at most one direction.
type Command struct {
	CDB   []byte // at most 16 bytes
	Read  int    // bytes expected
	Write []byte // sent as immediate data, so at most FirstBurstLength
}

// InquiryCommand is INQUIRY of the standard data, or of a vital product data page.
func InquiryCommand(vpd bool, page byte) Command {
	c := Command{CDB: []byte{0x12, 0, page, 0, 0xff, 0}, Read: 0xff}
	if vpd {
		c.CDB[1] = 1
	}
	return c
}

// CapacityCommand is READ CAPACITY(16).
func CapacityCommand() Command {
	cdb := make([]byte, 16)
	cdb[0], cdb[1], cdb[13] = 0x9e, 0x10, 32
	return Command{CDB: cdb, Read: 32}
}

// ModeCommand is MODE SENSE(6) of all pages without block descriptors, cut off after so many bytes; the header has 4.
func ModeCommand(n byte) Command {
	return Command{CDB: []byte{0x1a, 0x08, 0x3f, 0, n, 0}, Read: int(n)}
}

// ReadCommand is READ(16), or READ(10) where that suffices, of n blocks.
func ReadCommand(lba uint64, n uint32, blockSize int) Command {
	return Command{CDB: blockCDB(0x28, 0x88, lba, n), Read: int(n) * blockSize}
}

// WriteCommand is WRITE(10) or WRITE(16) of whole blocks.
func WriteCommand(lba uint64, data []byte, blockSize int) Command {
	return Command{CDB: blockCDB(0x2a, 0x8a, lba, uint32(len(data)/blockSize)), Write: data}
}

func blockCDB(op10, op16 byte, lba uint64, n uint32) []byte {
	if lba <= 0xffffffff && n <= 0xffff {
		cdb := make([]byte, 10)
		cdb[0] = op10
		binary.BigEndian.PutUint32(cdb[2:], uint32(lba))
		binary.BigEndian.PutUint16(cdb[7:], uint16(n))
		return cdb
	}
	cdb := make([]byte, 16)
	cdb[0] = op16
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], n)
	return cdb
}

// Capacity is the size of a logical unit.
type Capacity struct {
	Blocks    uint64
	BlockSize int
}

// Bytes returns the whole size.
func (c Capacity) Bytes() int64 { return int64(c.Blocks) * int64(c.BlockSize) }

func parseCapacity(b []byte) (Capacity, error) {
	if len(b) < 12 {
		return Capacity{}, fmt.Errorf("READ CAPACITY answered %d bytes", len(b))
	}
	c := Capacity{Blocks: binary.BigEndian.Uint64(b) + 1, BlockSize: int(binary.BigEndian.Uint32(b[8:]))}
	if c.BlockSize < 256 || c.BlockSize > 64<<10 {
		return Capacity{}, fmt.Errorf("READ CAPACITY answered blocks of %d bytes", c.BlockSize)
	}
	return c, nil
}
