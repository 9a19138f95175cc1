// Package channel is the framing on virt-attest's local byte streams: host ↔ guest agent
// (virtio-serial) and hostd ↔ sidecar (unix socket). Both ends treat the other as hostile.
//
// A frame on the wire, big endian:
//
//	offset size
//	0      4    magic "VATT"
//	4      1    version, 1
//	5      1    kind: 1 request, 2 response, 3 error, 4 event
//	6      1    op, which the protocol above gives its meaning
//	7      1    zero
//	8      4    id: chosen by the requester, repeated in the answer; 0 for events
//	12     4    n, length of the payload
//	16     n    payload
//	16+n   4    CRC-32C of all bytes before it
//
// A virtio-serial port loses its peer in mid-frame whenever either side restarts, so a Reader
// that meets anything else than a frame looks for the next magic and counts what it skipped.
// Lengths are checked before anything is allocated.
package channel

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Kind says what a frame is.
type Kind uint8

// The kinds of frame.
const (
	Request  Kind = 1
	Response Kind = 2
	Error    Kind = 3
	Event    Kind = 4
)

const (
	headerSize  = 16
	trailerSize = 4
	version     = 1
)

var (
	magic  = []byte("VATT")
	castag = crc32.MakeTable(crc32.Castagnoli)
)

// Frame is one message. Payload of a Frame out of Reader.Next is the caller's.
type Frame struct {
	Kind    Kind
	Op      uint8
	ID      uint32
	Payload []byte
}

// ErrTooLarge says that a payload is over the limit of its stream.
var ErrTooLarge = errors.New("channel: payload over the limit")

// Append appends the frame's wire form to b.
func (f Frame) Append(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, version, byte(f.Kind), f.Op, 0)
	b = binary.BigEndian.AppendUint32(b, f.ID)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Payload)))
	b = append(b, f.Payload...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castag))
}

// Write sends the frame in one Write call.
func Write(w io.Writer, f Frame, maxPayload int) error {
	if len(f.Payload) > maxPayload {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(f.Payload), maxPayload)
	}
	_, err := w.Write(f.Append(make([]byte, 0, headerSize+len(f.Payload)+trailerSize)))
	return err
}

// Reader takes frames out of a byte stream.
type Reader struct {
	r       *bufio.Reader
	max     int
	skipped uint64
}

// NewReader reads frames with payloads of at most maxPayload bytes from r.
func NewReader(r io.Reader, maxPayload int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 4096), max: maxPayload}
}

// Skipped counts the bytes that belonged to no frame.
func (r *Reader) Skipped() uint64 { return r.skipped }

// Next returns the next whole frame. It skips what is none and returns only errors of
// the stream below (io.EOF at its end, also in mid-frame).
func (r *Reader) Next() (Frame, error) {
	for {
		head, err := r.r.Peek(headerSize)
		if err != nil {
			return Frame{}, eof(err)
		}
		n := int64(binary.BigEndian.Uint32(head[12:]))
		if !plausible(head) || n > int64(r.max) {
			if err := r.resync(head); err != nil {
				return Frame{}, err
			}
			continue
		}
		f, ok, err := r.body(int(n))
		if err != nil {
			return Frame{}, eof(err)
		}
		if ok {
			return f, nil
		}
	}
}

func plausible(head []byte) bool {
	return bytes.Equal(head[:4], magic) && head[4] == version &&
		head[5] >= byte(Request) && head[5] <= byte(Event) && head[7] == 0
}

// resync drops at least one byte and all bytes up to the next possible magic.
func (r *Reader) resync(head []byte) error {
	n := bytes.IndexByte(head[1:], magic[0]) + 1
	if n == 0 {
		n = len(head)
	}
	d, err := r.r.Discard(n)
	r.skipped += uint64(d)
	return err
}

// body reads a frame whose header was plausible. When the checksum does not hold, the frame's
// length cannot be believed either: what was read is searched again behind its magic.
func (r *Reader) body(n int) (Frame, bool, error) {
	b := make([]byte, headerSize+n+trailerSize)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return Frame{}, false, err
	}
	end := headerSize + n
	if crc32.Checksum(b[:end], castag) == binary.BigEndian.Uint32(b[end:]) {
		return Frame{Kind: Kind(b[5]), Op: b[6], ID: binary.BigEndian.Uint32(b[8:]), Payload: b[headerSize:end]}, true, nil
	}
	r.skipped += uint64(len(magic))
	r.r = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(b[len(magic):]), r.r), 4096)
	return Frame{}, false, nil
}

func eof(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}
