package source

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"strings"
)

// cpioReader reads one archive of the format that the kernel takes (newc, with or without checksums), up to its trailer.
type cpioReader struct {
	r    *bufio.Reader
	off  int64 // bytes read since the archive began
	left int64 // of the member
	pad  int64 // after it
}

// cpioHeader is a member of an archive.
type cpioHeader struct {
	name  string
	mode  uint64
	size  int64
	links uint64
	file  [3]uint64 // inode, device
}

func (h *cpioHeader) regular() bool { return h.mode&0o170000 == 0o100000 }

var errCPIO = errors.New("the cpio archive is damaged")

const cpioTrailer = "TRAILER!!!"

// next goes to the next member; io.EOF is the trailer.
func (c *cpioReader) next() (*cpioHeader, error) {
	if err := c.discard(c.left + c.pad); err != nil {
		return nil, err
	}
	raw := make([]byte, 110)
	if err := c.full(raw); err != nil {
		return nil, err
	}
	if magic := string(raw[:6]); magic != "070701" && magic != "070702" {
		return nil, errCPIO
	}
	var f [13]uint64
	for i := range f {
		b, err := hex.DecodeString(string(raw[6+8*i : 14+8*i]))
		if err != nil {
			return nil, errCPIO
		}
		f[i] = uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	}
	if f[11] == 0 || f[11] > MaxName+1 {
		return nil, errCPIO
	}
	name := make([]byte, f[11])
	if err := c.full(name); err != nil {
		return nil, err
	}
	if err := c.discard(-c.off & 3); err != nil {
		return nil, err
	}
	h := &cpioHeader{name: strings.TrimSuffix(string(name), "\x00"), mode: f[1], size: int64(f[6]), links: f[4], file: [3]uint64{f[0], f[7], f[8]}}
	c.left, c.pad = h.size, -h.size&3
	if h.name == cpioTrailer {
		return nil, io.EOF
	}
	return h, nil
}

// Read reads the member.
func (c *cpioReader) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(b[:min(int64(len(b)), c.left)])
	c.left, c.off = c.left-int64(n), c.off+int64(n)
	return n, noEOF(err)
}

func (c *cpioReader) full(b []byte) error {
	n, err := io.ReadFull(c.r, b)
	c.off += int64(n)
	return noEOF(err)
}

func (c *cpioReader) discard(n int64) error {
	m, err := io.CopyN(io.Discard, c.r, n)
	c.off += m
	c.left, c.pad = 0, 0
	return noEOF(err)
}
