package channel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// Reader takes frames out of a byte stream. It holds minBuffer bytes while idle and never more
// than two of the largest frames. Where the stream has SetReadDeadline, the Reader owns it: end a
// Reader by closing the stream, not by a deadline.
type Reader struct {
	r       io.Reader
	limit   readDeadliner // nil where the stream has no deadlines
	max     int
	buf     []byte // window on the stream: a frame can only begin at buf[0]
	barren  bool   // the window was searched after a stall and holds no whole frame
	effort  int    // bytes that may still be summed up in vain
	skipped uint64
}

type readDeadliner interface{ SetReadDeadline(time.Time) error }

// NewReader reads frames with payloads of at most maxPayload bytes from r.
func NewReader(r io.Reader, maxPayload int) *Reader {
	d, _ := r.(readDeadliner)
	return &Reader{r: r, limit: d, max: maxPayload, effort: maxEffort * (maxPayload + overhead)}
}

// Skipped counts the bytes that belonged to no frame.
func (r *Reader) Skipped() uint64 { return r.skipped }

// Next returns the next whole frame. It skips what is none and returns only errors of
// the stream below (io.EOF at its end, also in mid-frame).
//
// When a frame's bytes stop coming in mid-frame (a stall, or the end of the stream), the part
// that is there is searched: a whole frame inside it means that the writer of the outer one is
// gone, and the outer one is given up. Without such a frame the Reader goes on waiting, so a
// frame that is merely slow is not lost.
func (r *Reader) Next() (Frame, error) {
	for {
		if f, ok := r.take(); ok {
			return f, nil
		}
		err := r.fill()
		switch {
		case err == nil:
		case r.stalled(err):
			r.barren = !r.rescue()
		case errors.Is(err, io.EOF) && r.rescue():
		default:
			r.drop(len(r.buf))
			return Frame{}, err
		}
	}
}

// take removes the frame at the window's start, and before it whatever cannot become one.
func (r *Reader) take() (Frame, bool) {
	for len(r.buf) > 0 {
		n, st := r.look(r.buf)
		switch st {
		case whole:
			f := frameOf(r.buf[:n])
			r.buf = r.buf[n:]
			return f, true
		case partial:
			return Frame{}, false
		}
		i := bytes.IndexByte(r.buf[1:], magic[0]) + 1
		if i == 0 {
			i = len(r.buf)
		}
		r.drop(i)
	}
	return Frame{}, false
}

// fill reads once, behind the window.
func (r *Reader) fill() error {
	r.makeRoom()
	if len(r.buf) > 0 && !r.barren {
		if err := r.deadline(time.Now().Add(stallTime)); err != nil {
			return err
		}
		defer func() { _ = r.deadline(time.Time{}) }() // the read itself tells of a stream that is gone
	}
	n, err := r.r.Read(r.buf[len(r.buf):cap(r.buf)])
	if n > 0 {
		r.buf, r.barren = r.buf[:len(r.buf)+n], false
		r.effort = min(r.effort+effortPerByte*n, maxEffort*(r.max+overhead))
		return nil // an error comes again
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

func (r *Reader) deadline(t time.Time) error {
	if r.limit == nil {
		return nil
	}
	err := r.limit.SetReadDeadline(t)
	if errors.Is(err, os.ErrNoDeadline) {
		r.limit, err = nil, nil
	}
	return err
}

// makeRoom leaves free space behind the window: at most as much again as has already arrived.
func (r *Reader) makeRoom() {
	have := len(r.buf)
	if have < cap(r.buf) && (have > 0 || cap(r.buf) >= minBuffer && cap(r.buf) < 2*minBuffer) {
		return
	}
	r.buf = append(make([]byte, 0, max(minBuffer, 2*have)), r.buf...)
}

// stalled says that err is the stall deadline's.
func (r *Reader) stalled(err error) bool {
	return r.limit != nil && len(r.buf) > 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// rescue gives the unfinished frame at the window's start up if a whole frame lies inside it.
func (r *Reader) rescue() bool {
	for i := 1; i < len(r.buf); i++ {
		j := bytes.Index(r.buf[i:], magic)
		if j < 0 {
			return false
		}
		i += j
		if _, st := r.look(r.buf[i:]); st == whole {
			r.drop(i)
			return true
		}
	}
	return false
}

func (r *Reader) drop(n int) {
	r.buf = r.buf[n:]
	r.skipped += uint64(n)
}

type state int

const (
	none    state = iota // no frame begins here
	partial              // what is there is a frame's beginning
	whole
)

// look says what begins at the start of b, and with whole its size on the wire. Headers that
// overlap make every one of their bytes begin another frame to sum up: that work is limited to
// a multiple of what arrived. Whoever floods so may lose frames of its own.
func (r *Reader) look(b []byte) (int, state) {
	if !begins(b) {
		return 0, none
	}
	if len(b) < headerSize {
		return 0, partial
	}
	n := int64(binary.BigEndian.Uint32(b[12:]))
	if n > int64(r.max) {
		return 0, none
	}
	end := headerSize + int(n)
	size := end + trailerSize
	if len(b) < size {
		return 0, partial
	}
	if size > r.effort {
		return 0, none
	}
	if crc32.Checksum(b[:end], castag) != binary.BigEndian.Uint32(b[end:]) {
		r.effort -= size
		return 0, none
	}
	return size, whole
}

// begins says whether b can be the beginning of a header, as far as it goes.
func begins(b []byte) bool {
	return bytes.HasPrefix(b, magic[:min(len(b), len(magic))]) &&
		(len(b) <= 4 || b[4] == version) &&
		(len(b) <= 5 || b[5] >= byte(Request) && b[5] <= byte(Event)) &&
		(len(b) <= 7 || b[7] == 0)
}

// frameOf copies the frame out of its wire form, so that the window's memory is not held.
func frameOf(b []byte) Frame {
	f := Frame{Kind: Kind(b[5]), Op: b[6], ID: binary.BigEndian.Uint32(b[8:])}
	if p := b[headerSize : len(b)-trailerSize]; len(p) > 0 {
		f.Payload = bytes.Clone(p)
	}
	return f
}
