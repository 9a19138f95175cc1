package disk

import (
	"compress/flate"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Image is the virtual disk in an image file.
type Image struct {
	io.ReaderAt
	Size   int64
	Format string // "raw" or "qcow2"
}

const qcow2Magic = "QFI\xfb"

// Open finds the virtual disk in an image file of size bytes. Errors of a file that cannot be used are *Error.
func Open(file io.ReaderAt, size int64) (*Image, error) {
	head := make([]byte, 4)
	if size >= 4 {
		if err := read(file, head, 0, "the header"); err != nil {
			return nil, err
		}
	}
	if string(head) != qcow2Magic {
		return &Image{ReaderAt: io.NewSectionReader(file, 0, size), Size: size, Format: "raw"}, nil
	}
	q, err := openQcow2(file, size)
	if err != nil {
		return nil, err
	}
	return &Image{ReaderAt: q, Size: q.size, Format: "qcow2"}, nil
}

// qcow2 reads a qcow2 image, versions 2 and 3 (QEMU's docs/interop/qcow2.txt). It is for one goroutine.
type qcow2 struct {
	file     io.ReaderAt
	fileSize int64
	size     int64
	bits     uint // of a cluster's size
	v3, zstd bool
	l1       []uint64
	l2       map[uint64][]uint64 // second tables by their place
	packed   uint64              // the compressed cluster that unpacked holds
	unpacked []byte
}

func openQcow2(file io.ReaderAt, fileSize int64) (*qcow2, error) {
	h := make([]byte, 112)
	if err := read(file, h[:72], 0, "the qcow2 header"); err != nil {
		return nil, err
	}
	be := binary.BigEndian
	q := &qcow2{file: file, fileSize: fileSize, bits: uint(be.Uint32(h[20:])), l2: map[uint64][]uint64{}}
	version := be.Uint32(h[4:])
	switch {
	case version != 2 && version != 3:
		return nil, bad("qcow2 version %d is not supported", version)
	case be.Uint64(h[8:]) != 0:
		return nil, bad("the image has a backing file; make one image of both: qemu-img convert -O qcow2")
	case be.Uint32(h[32:]) != 0:
		return nil, bad("the image is encrypted")
	case q.bits < 9 || q.bits > 21:
		return nil, bad("clusters of 2^%d bytes are not allowed", q.bits)
	case be.Uint64(h[24:]) > maxVirtual:
		return nil, bad("a disk over %d bytes is not supported", int64(maxVirtual))
	}
	if version == 3 {
		if err := q.extended(h); err != nil {
			return nil, err
		}
	}
	q.size = int64(be.Uint64(h[24:]))
	return q, q.readL1(int64(be.Uint32(h[36:]))*8, be.Uint64(h[40:]))
}

// extended looks at what version 3 adds to the header.
func (q *qcow2) extended(h []byte) error {
	if err := read(q.file, h[72:104], 72, "the qcow2 header"); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(h[100:]) > 104 {
		if err := read(q.file, h[104:112], 104, "the qcow2 header"); err != nil {
			return err
		}
	}
	q.v3 = true
	const dirty, compression = 1 << 0, 1 << 3 // only reference counts are dirty, which nobody needs here
	features := binary.BigEndian.Uint64(h[72:])
	if features&^(dirty|compression) != 0 {
		return bad("the qcow2 image has features that are not supported (%#x): it is corrupt, has its data in another file, or subclusters; see qemu-img convert", features)
	}
	if features&compression != 0 {
		if h[104] > 1 {
			return bad("compression %d of qcow2 is not known", h[104])
		}
		q.zstd = h[104] == 1
	}
	return nil
}

func (q *qcow2) readL1(size int64, at uint64) error {
	perL2 := int64(1) << (q.bits - 3)
	clusters := (q.size + q.cluster() - 1) >> q.bits
	need := (clusters + perL2 - 1) / perL2 * 8
	if need > maxL1 || size < need {
		return bad("the qcow2 image's first table has %d bytes, its disk needs %d", size, need)
	}
	if need > 0 && (at > uint64(q.fileSize) || int64(at) > q.fileSize-need) {
		return bad("the qcow2 image's first table lies outside of it")
	}
	raw := make([]byte, need)
	if err := read(q.file, raw, int64(at), "the qcow2 image's first table"); err != nil {
		return err
	}
	q.l1 = words(raw)
	return nil
}

func words(raw []byte) []uint64 {
	out := make([]uint64, len(raw)/8)
	for i := range out {
		out[i] = binary.BigEndian.Uint64(raw[8*i:])
	}
	return out
}

func (q *qcow2) cluster() int64 { return 1 << q.bits }

// ReadAt reads the virtual disk.
func (q *qcow2) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		if off < 0 || off >= q.size {
			return n, io.EOF
		}
		in := off & (q.cluster() - 1)
		part := b[n : n+int(min(int64(len(b)-n), q.cluster()-in, q.size-off))]
		if err := q.readCluster(part, off>>q.bits, in); err != nil {
			return n, err
		}
		n, off = n+len(part), off+int64(len(part))
	}
	return n, nil
}

const hostOffset = 1<<56 - 1<<9 // the bits of an entry that are a place in the file

// readCluster reads from one cluster, from in on.
func (q *qcow2) readCluster(b []byte, cluster, in int64) error {
	perL2 := int64(1) << (q.bits - 3)
	table, err := q.table(q.l1[cluster/perL2] & hostOffset)
	if err != nil {
		return err
	}
	var entry uint64
	if table != nil {
		entry = table[cluster%perL2]
	}
	switch {
	case entry&(1<<62) != 0:
		return q.readCompressed(b, entry, in)
	case entry&hostOffset == 0 || q.v3 && entry&1 != 0:
		clear(b)
		return nil
	}
	return read(q.file, b, int64(entry&hostOffset)+in, "a cluster")
}

// table gives the second table at a place; nil where there is none.
func (q *qcow2) table(at uint64) ([]uint64, error) {
	if at == 0 {
		return nil, nil
	}
	if t := q.l2[at]; t != nil {
		return t, nil
	}
	raw := make([]byte, q.cluster())
	if err := read(q.file, raw, int64(at), "a table of clusters"); err != nil {
		return nil, err
	}
	if len(q.l2) >= maxL2Cached {
		clear(q.l2)
	}
	t := words(raw)
	q.l2[at] = t
	return t, nil
}

func (q *qcow2) readCompressed(b []byte, entry uint64, in int64) error {
	if entry != q.packed || q.unpacked == nil {
		out, err := q.unpack(entry)
		if err != nil {
			return err
		}
		q.packed, q.unpacked = entry, out
	}
	copy(b, q.unpacked[in:])
	return nil
}

// unpack gives the whole cluster that a descriptor of a compressed one stands for.
func (q *qcow2) unpack(entry uint64) ([]byte, error) {
	bits := 62 - (q.bits - 8)
	at := int64(entry & (1<<bits - 1))
	sectors := int64(entry >> bits & (1<<(q.bits-8) - 1))
	size := min((sectors+1)*512-at&511, q.fileSize-at)
	if size <= 0 {
		return nil, bad("a compressed cluster lies outside of the image")
	}
	in := io.NewSectionReader(q.file, at, size)
	out := make([]byte, q.cluster())
	if !q.zstd {
		if _, err := io.ReadFull(flate.NewReader(in), out); err != nil {
			return nil, bad("a compressed cluster cannot be unpacked: %v", err)
		}
		return out, nil
	}
	d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if _, err := io.ReadFull(d, out); err != nil {
		return nil, bad("a compressed cluster cannot be unpacked: %v", err)
	}
	return out, nil
}
