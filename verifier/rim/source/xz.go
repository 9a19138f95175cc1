package source

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// xzReader reads .xz (the format's specification 1.1), streams one after the other. The library's reader of the container takes as much
// memory as any block asks for; this one refuses what is more than xz itself makes, and leaves LZMA2 to the library. The index is
// read over: it says again what the blocks say.
type xzReader struct {
	r     *bufio.Reader
	check byte      // of the stream
	size  int64     // packed bytes of the block so far
	block io.Reader // nil between blocks
	sum   hash.Hash
	began bool // a stream was there
	err   error
}

var errXZ = errors.New("xz: damaged")

func (x *xzReader) Read(b []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(b)
		x.sum.Write(b[:n])
		if errors.Is(err, io.EOF) {
			err = x.endBlock()
		}
		if x.err = err; n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next begins the next block, over the end of a stream if need be; io.EOF is the end of the last one.
func (x *xzReader) next() error {
	if x.check == 0xff || !x.began {
		return x.stream()
	}
	size, err := x.r.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	if size == 0 {
		return x.index()
	}
	head := make([]byte, (int(size)+1)*4)
	head[0] = size
	if _, err := io.ReadFull(x.r, head[1:]); err != nil {
		return noEOF(err)
	}
	body := head[:len(head)-4]
	if binary.LittleEndian.Uint32(head[len(body):]) != crc32.ChecksumIEEE(body) {
		return errXZ
	}
	window, err := xzWindow(body)
	if err != nil {
		return err
	}
	x.size = 0
	x.block, err = lzma.Reader2Config{DictCap: window}.NewReader2(&counting{x.r, &x.size})
	x.sum.Reset()
	return err
}

// xzWindow reads a block's header as far as its one filter, LZMA2.
func xzWindow(head []byte) (int, error) {
	flags, rest := head[1], head[2:]
	if flags&0x3c != 0 || flags&3 != 0 {
		return 0, errors.New("xz: filters besides LZMA2 are not supported")
	}
	for range int(flags>>6&1) + int(flags>>7) {
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0, errXZ
		}
		rest = rest[n:]
	}
	if len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 || rest[2] > 40 {
		return 0, errors.New("xz: filters besides LZMA2 are not supported")
	}
	window := int64(2|rest[2]&1) << (rest[2]/2 + 11)
	if rest[2] == 40 || window > maxWindow {
		return 0, fmt.Errorf("xz: it wants a window of %d bytes; %d are allowed", window, maxWindow)
	}
	return int(window), nil
}

// stream begins a stream. Padding of zeros may come before all but the first.
func (x *xzReader) stream() error {
	for x.began {
		pad, err := x.r.Peek(4)
		if len(pad) == 0 {
			return err
		}
		if !bytes.Equal(pad, make([]byte, 4)) {
			break
		}
		_, _ = x.r.Discard(4) // was peeked at
	}
	head := make([]byte, 12)
	if _, err := io.ReadFull(x.r, head); err != nil {
		return noEOF(err)
	}
	if string(head[:6]) != "\xfd7zXZ\x00" || binary.LittleEndian.Uint32(head[8:]) != crc32.ChecksumIEEE(head[6:8]) || head[6] != 0 {
		return errXZ
	}
	x.check, x.began = head[7], true
	switch x.check {
	case 0:
		x.sum = none{}
	case 1:
		x.sum = crc32.NewIEEE()
	case 4:
		x.sum = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		x.sum = sha256.New()
	default:
		return fmt.Errorf("xz: check %d is not known", x.check)
	}
	return nil
}

// endBlock reads a block's padding and check.
func (x *xzReader) endBlock() error {
	want := x.sum.Sum(nil)
	if x.check == 1 || x.check == 4 { // little-endian there, big-endian here
		for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
			want[i], want[j] = want[j], want[i]
		}
	}
	tail := make([]byte, int(-x.size&3)+len(want))
	if _, err := io.ReadFull(x.r, tail); err != nil {
		return noEOF(err)
	}
	if !bytes.Equal(tail[len(tail)-len(want):], want) {
		return errors.New("xz: the check of a block does not match")
	}
	x.block = nil
	return nil
}

// index reads over a stream's index, whose first byte is read, and its footer.
func (x *xzReader) index() error {
	size := int64(1)
	count, err := binary.ReadUvarint(&counting{x.r, &size})
	if err != nil {
		return noEOF(err)
	}
	for range count {
		for range 2 {
			if _, err := binary.ReadUvarint(&counting{x.r, &size}); err != nil {
				return noEOF(err)
			}
		}
	}
	rest := make([]byte, int(-size&3)+4+12)
	if _, err := io.ReadFull(x.r, rest); err != nil {
		return noEOF(err)
	}
	if string(rest[len(rest)-2:]) != "YZ" {
		return errXZ
	}
	x.check = 0xff // the next thing is a stream
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// counting counts the bytes that are read.
type counting struct {
	r *bufio.Reader
	n *int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	*c.n += int64(n)
	return n, err
}

func (c *counting) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		*c.n++
	}
	return b, err
}

// none is no check.
type none struct{}

func (none) Write(b []byte) (int, error) { return len(b), nil }
func (none) Sum(b []byte) []byte         { return b }
func (none) Reset()                      {}
func (none) Size() int                   { return 0 }
func (none) BlockSize() int              { return 1 }
