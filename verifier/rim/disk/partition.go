package disk

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Partition is a part of a disk.
type Partition struct {
	Number int    // from 1; 0 is a disk without a table
	UUID   string // PARTUUID as in fstab, lower case; "" of a disk without a table
	Start  int64  // bytes
	Size   int64
}

// Partitions reads the partition table of a disk. A disk without one is one part.
func Partitions(r io.ReaderAt, size int64) ([]Partition, error) {
	whole := []Partition{{Size: size}}
	mbr := make([]byte, 512)
	if size < 1024 {
		return whole, nil
	}
	if err := read(r, mbr, 0, "the first sector"); err != nil {
		return nil, err
	}
	for _, sector := range []int64{512, 4096} {
		head := make([]byte, 92)
		if size >= 2*sector && read(r, head, sector, "the GPT header") == nil && string(head[:8]) == "EFI PART" {
			return gpt(r, size, sector, head)
		}
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa || isExt(r, 0) {
		return whole, nil
	}
	return mbrTable(r, size, mbr)
}

func gpt(r io.ReaderAt, size, sector int64, head []byte) ([]Partition, error) {
	le := binary.LittleEndian
	at, count, each := le.Uint64(head[72:]), le.Uint32(head[80:]), le.Uint32(head[84:])
	if count > MaxPartitions || each < 128 || each > 4096 || at > uint64(size/sector) {
		return nil, bad("the GPT has %d entries of %d bytes at sector %d", count, each, at)
	}
	raw := make([]byte, int(count)*int(each))
	if err := read(r, raw, int64(at)*sector, "the GPT"); err != nil {
		return nil, err
	}
	var out []Partition
	for i := range int(count) {
		e := raw[i*int(each):]
		if [16]byte(e[:16]) == ([16]byte{}) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first > last || last >= uint64(size/sector) {
			return nil, bad("partition %d lies outside of the disk", i+1)
		}
		out = append(out, Partition{Number: i + 1, UUID: guid(e[16:32]), Start: int64(first) * sector, Size: int64(last-first+1) * sector})
	}
	return out, nil
}

// guid writes a GUID, whose first three parts are little-endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

func mbrTable(r io.ReaderAt, size int64, mbr []byte) ([]Partition, error) {
	id := hex.EncodeToString([]byte{mbr[443], mbr[442], mbr[441], mbr[440]})
	var out []Partition
	add := func(number int, start, sectors int64) error {
		if sectors <= 0 || start+sectors > size/512 {
			return bad("partition %d lies outside of the disk", number)
		}
		out = append(out, Partition{Number: number, UUID: fmt.Sprintf("%s-%02x", id, number), Start: start * 512, Size: sectors * 512})
		return nil
	}
	for i := range 4 {
		kind, start, sectors := mbrEntry(mbr, i)
		var err error
		switch kind {
		case 0:
		case 0x05, 0x0f, 0x85:
			err = logical(r, start, add)
		default:
			err = add(i+1, start, sectors)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func mbrEntry(sector []byte, i int) (kind byte, start, sectors int64) {
	e := sector[446+16*i:]
	return e[4], int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
}

// logical follows the chain of tables in an extended partition.
func logical(r io.ReaderAt, base int64, add func(number int, start, sectors int64) error) error {
	next := base
	for number := 5; number < MaxPartitions; number++ {
		sector := make([]byte, 512)
		if err := read(r, sector, next*512, "an extended partition table"); err != nil {
			return err
		}
		if sector[510] != 0x55 || sector[511] != 0xaa {
			return bad("an extended partition table has no signature")
		}
		if kind, start, sectors := mbrEntry(sector, 0); kind != 0 {
			if err := add(number, next+start, sectors); err != nil {
				return err
			}
		}
		kind, start, _ := mbrEntry(sector, 1)
		if kind == 0 {
			return nil
		}
		next = base + start
	}
	return bad("more than %d partitions", MaxPartitions)
}

// Kind names what a partition holds, as far as its first bytes tell: "ext4" for all of its family.
func Kind(r io.ReaderAt, p Partition) string {
	at := func(off int64, magic string) bool {
		b := make([]byte, len(magic))
		return off+int64(len(b)) <= p.Size && read(r, b, p.Start+off, "") == nil && string(b) == magic
	}
	switch {
	case isExt(r, p.Start):
		return "ext4"
	case at(0, "XFSB"):
		return "xfs"
	case at(0x10040, "_BHRfS_M"):
		return "btrfs"
	case at(0, "hsqs"):
		return "squashfs"
	case at(512, "LABELONE") || at(0, "LABELONE"):
		return "LVM"
	case at(0, "LUKS\xba\xbe"):
		return "LUKS"
	case at(1024, "\x10\x20\xf5\xf2"):
		return "f2fs"
	case at(1024, "\xe2\xe1\xf5\xe0"):
		return "erofs"
	case at(4086, "SWAPSPACE2"):
		return "swap"
	case at(54, "FAT") || at(82, "FAT32"):
		return "FAT"
	case at(1024+24, "") && blank(r, p):
		return "nothing"
	}
	return "unknown"
}

// blank reports whether a partition begins with zeros, as GRUB's and others without a file system may.
func blank(r io.ReaderAt, p Partition) bool {
	b := make([]byte, min(p.Size, 8192))
	return read(r, b, p.Start, "") == nil && strings.Trim(string(b), "\x00") == ""
}

func isExt(r io.ReaderAt, start int64) bool {
	b := make([]byte, 2)
	return read(r, b, start+1024+0x38, "") == nil && b[0] == 0x53 && b[1] == 0xef
}
