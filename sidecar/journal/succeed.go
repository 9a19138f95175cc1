//go:build linux && (amd64 || arm64 || riscv64 || loong64 || ppc64le)

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Left is what was under way in a journal of another layout. What it was cannot be gone on with.
type Left struct {
	Guest, Control End
	// SWTPM says that swtpm may still answer something that nobody waits for any more.
	SWTPM bool
	// Command is the first word of the control request that is under way.
	Command uint32
}

// End is how an exchange is ended that cannot be gone on with.
type End uint8

// The ends.
const (
	Nothing End = iota // nothing was under way
	Answer             // whoever asked still waits for the whole answer
	Break              // part of an answer has been delivered: the connection is of no more use
)

// oldest is the first version with an outline.
const oldest = 2

// Succeed makes a journal in the place of one of another layout: with the same State, and with nothing
// under way. It leaves fd to the caller. It fails where fd is no journal with an outline.
func Succeed(fd int) (*Journal, Left, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size < pageSize || st.Size > maxOther {
		return nil, Left{}, fmt.Errorf("journal: no journal (%d bytes)", st.Size)
	}
	b := make([]byte, st.Size)
	if n, err := unix.Pread(fd, b, 0); err != nil || n != len(b) {
		return nil, Left{}, fmt.Errorf("journal: %d bytes read: %w", n, err)
	}
	old := other(b)
	if m := old.long(0); m>>8 != magic>>8 || m&0xff < oldest {
		return nil, Left{}, fmt.Errorf("journal: %#x is no journal's beginning", m)
	}
	j, err := Create()
	if err != nil {
		return nil, Left{}, err
	}
	left, err := j.take(old)
	if err != nil {
		j.Close()
		return nil, Left{}, err
	}
	return j, left, nil
}

const maxOther = 64 << 20

// take takes over from a journal of another layout.
func (j *Journal) take(old other) (left Left, err error) {
	state, size := old.short(8), int(old.short(10))
	if int(state)+size > pageSize {
		return left, errOutline
	}
	mine := thisOutline()
	copy(j.mem[mine.state:mine.state+mine.stateSize], old[state:int(state)+size])
	guest, own, ctrl := old.slot(16), old.slot(32), old.slot(48)
	for _, s := range []slotOutline{guest, own, ctrl} {
		if !s.sound(len(old)) {
			return left, errOutline
		}
	}
	j.h.guest.Seq.Store(old.long(int(guest.seq)) + 1)
	j.h.ctrl.Seq.Store(old.long(int(ctrl.seq)) + 1)
	left.Guest, left.SWTPM = old.end(guest)
	end, atWork := old.end(ctrl)
	left.Control, left.SWTPM = end, left.SWTPM || atWork || old.word(int(own.step)) != 0
	left.Command = binary.BigEndian.Uint32(old[ctrl.request:])
	return left, nil
}

var errOutline = errors.New("journal: an outline that cannot be")

// other is a copy of a journal of another layout.
type other []byte

func (o other) short(at int) uint16 { return binary.NativeEndian.Uint16(o[at:]) }
func (o other) word(at int) uint32  { return binary.NativeEndian.Uint32(o[at:]) }
func (o other) long(at int) uint64  { return binary.NativeEndian.Uint64(o[at:]) }

// slot reads the outline of a slot.
func (o other) slot(at int) slotOutline {
	return slotOutline{
		step: o.short(at), size: o.short(at + 2), seq: o.short(at + 4), take: o.short(at + 6), reply: o.short(at + 8),
		replying: o.short(at + 10), request: o.word(at + 12),
	}
}

// sound tells whether everything lies in the header page, and the request in the journal.
func (s slotOutline) sound(size int) bool {
	for _, at := range []uint16{s.step, s.size, s.seq, s.take, s.reply} {
		if int(at) > pageSize-8 {
			return false
		}
	}
	return int64(s.request) <= int64(size)-4
}

// end tells how a slot's exchange has to be ended, and whether swtpm may be at work on it.
func (o other) end(s slotOutline) (end End, atWork bool) {
	done := func(at uint16) uint64 { w := o.long(int(at)); return w>>32 + w&0xffffffff }
	switch step := o.word(int(s.step)); {
	case step == 0 && done(s.take) == 0:
		return Nothing, false
	case step == 0:
		return Answer, false
	case step != uint32(s.replying):
		return Answer, true
	}
	switch delivered := done(s.reply); {
	case delivered == 0:
		return Answer, false
	case delivered < uint64(o.word(int(s.size))):
		return Break, false
	}
	return Nothing, false
}
