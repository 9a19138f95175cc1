package disk

import (
	"encoding/binary"
	"io"
)

// extent is a run of a file's blocks.
type extent struct {
	logical uint64
	count   uint64
	start   uint64 // 0: a hole, or written never
}

// open gives the bytes of an inode.
func (f *Ext4) open(i *inode) (io.Reader, error) {
	var list []extent
	var err error
	if i.flags&flagExtents != 0 {
		w := extentWalk{f: f, blocks: uint64((i.size + f.block - 1) / f.block)}
		err = w.node(i.block[:], -1)
		list = w.list
	} else {
		list, err = f.indirect(i)
	}
	if err != nil {
		return nil, err
	}
	return &fileReader{f: f, left: i.size, list: list}, nil
}

// extentWalk reads an extent tree. Extents must ascend, and every node but the root must hold something, so that the walk ends.
type extentWalk struct {
	f      *Ext4
	blocks uint64 // of the file
	list   []extent
	next   uint64 // first logical block that may come
	nodes  int
}

// node reads a node; depth is the one that its parent wants, -1 for the root.
func (w *extentWalk) node(b []byte, depth int) error {
	le := binary.LittleEndian
	count, level := int(le.Uint16(b[2:])), int(le.Uint16(b[6:]))
	w.nodes++
	switch {
	case le.Uint16(b) != 0xf30a || 12+12*count > len(b) || level > 5:
		return bad("a node of an extent tree is damaged")
	case depth >= 0 && (level != depth || count == 0) || w.nodes > maxExtents:
		return bad("an extent tree is damaged")
	}
	for i := range count {
		e := b[12+12*i:]
		if level == 0 {
			if err := w.leaf(e); err != nil {
				return err
			}
			continue
		}
		at := uint64(le.Uint32(e[4:])) | uint64(le.Uint16(e[8:]))<<32
		if at == 0 || at >= w.f.blocks {
			return bad("a node of an extent tree lies outside of the image")
		}
		child := make([]byte, w.f.block)
		if err := read(w.f.r, child, int64(at)*w.f.block, "a node of an extent tree"); err != nil {
			return err
		}
		if err := w.node(child, level-1); err != nil {
			return err
		}
	}
	return nil
}

func (w *extentWalk) leaf(e []byte) error {
	le := binary.LittleEndian
	x := extent{logical: uint64(le.Uint32(e)), count: uint64(le.Uint16(e[4:])), start: uint64(le.Uint16(e[6:]))<<32 | uint64(le.Uint32(e[8:]))}
	if x.count > 32768 { // allocated, never written
		x.count -= 32768
		x.start = 0
	} else if x.start == 0 || x.start+x.count > w.f.blocks {
		return bad("an extent lies outside of the image")
	}
	if x.count == 0 || x.logical < w.next || len(w.list) >= maxExtents {
		return bad("an extent tree is not in order")
	}
	w.next = x.logical + x.count
	if x.logical < w.blocks { // blocks may be there beyond the end
		w.list = append(w.list, x)
	}
	return nil
}

// indirect gives the blocks of a file in the manner of ext2: twelve, and tables of tables.
func (f *Ext4) indirect(i *inode) ([]extent, error) {
	w := indirectWalk{f: f, blocks: uint64((i.size + f.block - 1) / f.block)}
	for n := range 15 {
		if err := w.add(uint64(binary.LittleEndian.Uint32(i.block[4*n:])), max(0, n-11)); err != nil {
			return nil, err
		}
	}
	if w.next < w.blocks {
		return nil, bad("inode %d is larger than its map", i.number)
	}
	return w.list, nil
}

type indirectWalk struct {
	f      *Ext4
	blocks uint64
	next   uint64
	list   []extent
	tables int
}

// add appends the blocks that a pointer leads to through level tables.
func (w *indirectWalk) add(at uint64, level int) error {
	per := uint64(w.f.block / 4)
	span := uint64(1)
	for range level {
		span *= per
	}
	switch {
	case w.next >= w.blocks:
		return nil
	case at >= w.f.blocks:
		return bad("a block lies outside of the image")
	case at == 0:
		w.next += span
		return nil
	case level == 0:
		if n := len(w.list); n > 0 && w.list[n-1].start+w.list[n-1].count == at && w.list[n-1].logical+w.list[n-1].count == w.next {
			w.list[n-1].count++
		} else if n >= maxExtents {
			return bad("a file is in more than %d pieces", maxExtents)
		} else {
			w.list = append(w.list, extent{w.next, 1, at})
		}
		w.next++
		return nil
	}
	if w.tables++; w.tables > maxExtents {
		return bad("a file has more than %d tables of blocks", maxExtents)
	}
	table := make([]byte, w.f.block)
	if err := read(w.f.r, table, int64(at)*w.f.block, "a table of blocks"); err != nil {
		return err
	}
	for n := range int(per) {
		if err := w.add(uint64(binary.LittleEndian.Uint32(table[4*n:])), level-1); err != nil {
			return err
		}
	}
	return nil
}

// fileReader reads a file by its extents; what no extent has is zeros.
type fileReader struct {
	f    *Ext4
	off  int64
	left int64
	list []extent
}

func (r *fileReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), r.left)]
	for len(r.list) > 0 && r.off >= int64(r.list[0].logical+r.list[0].count)*r.f.block {
		r.list = r.list[1:]
	}
	at, zeros := int64(0), true
	if len(r.list) > 0 {
		x := r.list[0]
		if from := int64(x.logical) * r.f.block; r.off < from {
			b = b[:min(int64(len(b)), from-r.off)]
		} else {
			b = b[:min(int64(len(b)), from+int64(x.count)*r.f.block-r.off)]
			zeros, at = x.start == 0, int64(x.start)*r.f.block+r.off-from
		}
	}
	if zeros {
		clear(b)
	} else if err := read(r.f.r, b, at, "a file's block"); err != nil {
		return 0, err
	}
	r.off, r.left = r.off+int64(len(b)), r.left-int64(len(b))
	return len(b), nil
}
