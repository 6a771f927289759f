package image

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Where things stand in the volume descriptors of ISO 9660 (ECMA-119 §8.4) and in El Torito's catalogue (El Torito 1.0, figures 2 to 7).
const (
	primaryAt  = 16 * isoBlock
	bootAt     = 17 * isoBlock
	volumeSize = 80  // in blocks, in both byte orders
	rootRecord = 156 // of 34 bytes
	recordLBA  = 2
	recordSize = 10
	recordDate = 18
	dates      = 813 // four of 17 characters
	dateSize   = 17

	catalogLBA    = 0x47 // in the boot record
	firstImageLBA = 0x28 // in the catalogue
	efiImageSize  = 0x66 // in sectors
	efiImageLBA   = 0x68
)

// finishISO tells the file system of a CD that it fills the medium, where the image for UEFI is, and what the date is; go-diskfs knows of none of
// these. It returns the block of the first boot image.
func finishISO(b []byte, now time.Time) (first uint32, err error) {
	le := binary.LittleEndian
	primary := b[primaryAt : primaryAt+isoBlock]
	root, size := int64(le.Uint32(primary[rootRecord+recordLBA:]))*isoBlock, int64(le.Uint32(primary[rootRecord+recordSize:]))
	catalog := int64(le.Uint32(b[bootAt+catalogLBA:])) * isoBlock
	if root+size > fatAt || catalog+isoBlock > fatAt || string(primary[1:6]) != "CD001" || string(b[bootAt+7:bootAt+30]) != "EL TORITO SPECIFICATION" {
		return 0, fmt.Errorf("the root is at %d and the boot catalogue at %d", root, catalog)
	}
	le.PutUint32(primary[volumeSize:], MediumSize/isoBlock)
	binary.BigEndian.PutUint32(primary[volumeSize+4:], MediumSize/isoBlock)
	setDates(b, root, size, now.UTC())

	first = le.Uint32(b[catalog+firstImageLBA:])
	le.PutUint16(b[catalog+efiImageSize:], fatSize/sectorSize)
	le.PutUint32(b[catalog+efiImageLBA:], fatAt/isoBlock)
	return first, nil
}

// setDates replaces the dates of the volume and of each record of its root folder.
func setDates(b []byte, root, size int64, now time.Time) {
	primary := b[primaryAt : primaryAt+isoBlock]
	text := append([]byte(now.Format("20060102150405")+"00"), 0) // hundredths, and quarters of an hour from UTC
	never := append([]byte("0000000000000000"), 0)
	for i, date := range [][]byte{text, text, never, text} { // created, changed, expires, counts from
		copy(primary[dates+i*dateSize:], date)
	}
	short := []byte{byte(now.Year() - 1900), byte(now.Month()), byte(now.Day()), byte(now.Hour()), byte(now.Minute()), byte(now.Second()), 0}
	copy(primary[rootRecord+recordDate:], short)
	for at := root; at < root+size && b[at] != 0; at += int64(b[at]) {
		copy(b[at+recordDate:], short)
	}
}

// writeMBR makes the medium a disk: ISOLINUX's boot sector, which finds isolinux.bin at that block, and a partition table with the file system for UEFI.
func writeMBR(b, code []byte, isolinux uint32) error {
	head, tail, err := gptTables(guidOf("boot medium", "disk"), int64(len(b)), []gptPartition{
		{kind: typeESP, id: guidOf("boot medium", "partition"), name: mediumName, start: fatAt, size: fatSize},
	})
	if err != nil {
		return err
	}
	copy(head[:mbrSize], code)
	const isolinuxAt = 432 // in sectors, of 64 bits: what Syslinux's isohybrid writes
	binary.LittleEndian.PutUint64(head[isolinuxAt:], uint64(isolinux)*(isoBlock/sectorSize))
	copy(b, head)
	copy(b[len(b)-len(tail):], tail)
	return nil
}

// mediumName is the GPT name of the partition of a boot medium.
const mediumName = "everboot-bdm"
