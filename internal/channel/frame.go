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
// A frame that stops in the middle is kept waiting only as long as no whole frame came behind it
// (Reader.Next). Lengths are checked before anything is allocated, and memory is taken as bytes
// arrive, never because a header announces them.
package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
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
	overhead    = headerSize + trailerSize
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
	_, err := writeBy(w, f, maxPayload, time.Time{})
	return err
}

type writeDeadliner interface{ SetWriteDeadline(time.Time) error }

// writeBy is Write that ends at the deadline, if there is one and w has deadlines. It
// returns how many bytes got out.
func writeBy(w io.Writer, f Frame, maxPayload int, deadline time.Time) (int, error) {
	if len(f.Payload) > maxPayload {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(f.Payload), maxPayload)
	}
	if d, ok := w.(writeDeadliner); ok && !deadline.IsZero() {
		if err := d.SetWriteDeadline(deadline); err != nil && !errors.Is(err, os.ErrNoDeadline) {
			return 0, err
		}
	}
	return w.Write(f.Append(make([]byte, 0, overhead+len(f.Payload))))
}
