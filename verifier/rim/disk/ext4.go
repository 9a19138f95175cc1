package disk

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Ext4 is a file system of the ext2, ext3 and ext4 family, as the kernel's documentation of ext4 has it. It is for one
// goroutine.
type Ext4 struct {
	UUID  string // as in fstab, lower case
	Label string

	r         io.ReaderAt // of the file system's bytes
	size      int64
	block     int64 // bytes
	blocks    uint64
	inodes    uint32
	perGroup  uint32
	inodeSize int64
	tables    []uint64 // first block of each group's inodes
}

// Features (incompatible ones) that change nothing for who reads.
const (
	extFiletype = 0x2
	extRecover  = 0x4
	extExtents  = 0x40
	ext64Bit    = 0x80
	extMMP      = 0x100
	extFlexBG   = 0x200
	extEAInode  = 0x400
	extCsumSeed = 0x2000
	extLargeDir = 0x4000
	extInline   = 0x8000
	extCasefold = 0x20000

	extKnown = extFiletype | extExtents | ext64Bit | extMMP | extFlexBG | extEAInode | extCsumSeed | extLargeDir | extInline | extCasefold
)

// OpenExt4 opens the file system of a partition. One that was not unmounted cleanly is refused: its journal says otherwise than
// its blocks.
func OpenExt4(disk io.ReaderAt, p Partition) (*Ext4, error) {
	f := &Ext4{r: io.NewSectionReader(disk, p.Start, p.Size), size: p.Size}
	sb := make([]byte, 1024)
	if err := read(f.r, sb, 1024, "the superblock"); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	incompat := le.Uint32(sb[0x60:])
	switch {
	case le.Uint16(sb[0x38:]) != 0xef53:
		return nil, bad("there is no ext4 file system")
	case incompat&extRecover != 0:
		return nil, bad("the file system was not unmounted cleanly: shut the VM down, or run e2fsck on a copy")
	case incompat&^extKnown != 0:
		return nil, bad("the file system has features that are not supported (%#x)", incompat&^extKnown)
	case le.Uint32(sb[0x18:]) > 5:
		return nil, bad("blocks of 2^%d bytes are not supported", 10+le.Uint32(sb[0x18:]))
	}
	f.block = 1024 << le.Uint32(sb[0x18:])
	f.blocks = uint64(le.Uint32(sb[0x4:]))
	f.inodes, f.perGroup, f.inodeSize = le.Uint32(sb), le.Uint32(sb[0x28:]), 128
	if le.Uint32(sb[0x4c:]) > 0 {
		f.inodeSize = int64(le.Uint16(sb[0x58:]))
	}
	if incompat&ext64Bit != 0 {
		f.blocks |= uint64(le.Uint32(sb[0x150:])) << 32
	}
	f.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", sb[0x68:0x6c], sb[0x6c:0x6e], sb[0x6e:0x70], sb[0x70:0x72], sb[0x72:0x78])
	f.Label = strings.TrimRight(string(sb[0x78:0x88]), "\x00")
	if f.inodeSize < 128 || f.inodeSize > f.block || f.perGroup == 0 || f.blocks > uint64(f.size/f.block) {
		return nil, bad("the superblock makes no sense: %d blocks of %d bytes, inodes of %d", f.blocks, f.block, f.inodeSize)
	}
	return f, f.groups(sb, incompat)
}

// groups reads where each group has its inodes.
func (f *Ext4) groups(sb []byte, incompat uint32) error {
	le := binary.LittleEndian
	descriptor := int64(32)
	if incompat&ext64Bit != 0 {
		descriptor = int64(le.Uint16(sb[0xfe:]))
	}
	count := (int64(f.inodes) + int64(f.perGroup) - 1) / int64(f.perGroup)
	if descriptor < 32 || descriptor > 1024 || count > maxGroups {
		return bad("the superblock makes no sense: %d groups, descriptors of %d bytes", count, descriptor)
	}
	first := int64(le.Uint32(sb[0x14:])) + 1
	if count*descriptor > f.size {
		return bad("the group descriptors lie outside of the image")
	}
	raw := make([]byte, count*descriptor)
	if err := read(f.r, raw, first*f.block, "the group descriptors"); err != nil {
		return err
	}
	f.tables = make([]uint64, count)
	for i := range f.tables {
		d := raw[int64(i)*descriptor:]
		f.tables[i] = uint64(le.Uint32(d[8:]))
		if descriptor >= 64 {
			f.tables[i] |= uint64(le.Uint32(d[0x28:])) << 32
		}
	}
	return nil
}

// Flags of inodes.
const (
	flagEncrypted = 0x800
	flagExtents   = 0x80000
	flagInline    = 0x10000000
)

// inode is what is needed of one.
type inode struct {
	number uint32
	mode   uint16
	flags  uint32
	size   int64
	block  [60]byte // its map
}

func (i *inode) dir() bool     { return i.mode&0xf000 == 0x4000 }
func (i *inode) regular() bool { return i.mode&0xf000 == 0x8000 }

func (f *Ext4) inode(number uint32) (*inode, error) {
	if number == 0 || number > f.inodes {
		return nil, bad("there is no inode %d", number)
	}
	group, index := (number-1)/f.perGroup, (number-1)%f.perGroup
	table := f.tables[group]
	if table >= f.blocks {
		return nil, bad("inode %d lies outside of the image", number)
	}
	b := make([]byte, 128)
	if err := read(f.r, b, int64(table)*f.block+int64(index)*f.inodeSize, "an inode"); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	i := &inode{number: number, mode: le.Uint16(b), flags: le.Uint32(b[0x20:]), block: [60]byte(b[0x28:])}
	size := uint64(le.Uint32(b[4:])) | uint64(le.Uint32(b[0x6c:]))<<32
	switch {
	case size > maxVirtual:
		return nil, bad("inode %d has %d bytes", number, size)
	case i.flags&flagEncrypted != 0:
		return nil, bad("inode %d is encrypted", number)
	case i.flags&flagInline != 0 && (i.dir() || i.regular()):
		return nil, bad("inode %d has its contents in itself (inline_data), which is not supported", number)
	}
	i.size = int64(size)
	return i, nil
}
