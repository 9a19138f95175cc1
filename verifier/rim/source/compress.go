package source

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

// magics are the beginnings of what can be unpacked.
var magics = []struct {
	magic string
	open  func(*bufio.Reader) (io.ReadCloser, error)
}{
	{"\x1f\x8b", func(r *bufio.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
	{"\xfd7zXZ\x00", func(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(&xzReader{r: r}), nil }},
	{"\x28\xb5\x2f\xfd", openZstd},
	{"BZh", func(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(r)), nil }},
	{"\x5d\x00\x00", openLZMA},
	{"\x04\x22\x4d\x18", openLZ4},
	{"\x02\x21\x4c\x18", openLZ4}, // as the kernel's: lz4 -l
}

const longestMagic = 6

// unpacker gives what r unpacks to; packed is false where r begins with no magic that is known, and then it is given as it is.
func unpacker(r *bufio.Reader) (out io.ReadCloser, packed bool, err error) {
	head, err := r.Peek(longestMagic)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			out, err = m.open(r)
			return out, true, err
		}
	}
	return io.NopCloser(r), false, nil
}

func openZstd(r *bufio.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(2*maxWindow), zstd.WithDecoderMaxMemory(MaxUnpacked))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

func openLZMA(r *bufio.Reader) (io.ReadCloser, error) {
	d, err := lzma.ReaderConfig{DictCap: maxWindow}.NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(d), nil
}

func openLZ4(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(lz4.NewReader(r)), nil }

// bounded gives an error, and not the end, after limit bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("it unpacks to more than %d bytes", int64(MaxUnpacked))
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
