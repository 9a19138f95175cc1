//go:build linux && (amd64 || arm64 || riscv64 || loong64 || ppc64le)

package journal

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmwire"
)

// Version is the version of the layout, stored as the journal's last byte of magic.
const Version = 3

const magic = 0x7661_6a6f_7572_6e00 | Version

// Sizes of the buffers behind the header page. Commands get twice the largest frame, so that a
// frame that is too long is seen as one.
const (
	pageSize    = 4096
	CommandSize = 2 * tpmwire.MaxFrame
	replySize   = 2 * tpmwire.MaxFrame
	controlSize = (swtpmctl.MaxRequest + pageSize - 1) / pageSize * pageSize

	offGuestCommand = pageSize
	offGuestReply   = offGuestCommand + CommandSize
	offOwnCommand   = offGuestReply + replySize
	offOwnReply     = offOwnCommand + CommandSize
	offCtrlRequest  = offOwnReply + replySize
	offCtrlReply    = offCtrlRequest + controlSize
	totalSize       = offCtrlReply + controlSize
)

// header is the first page. Everything in it is a fixed size and naturally aligned.
type header struct {
	magic   uint64
	outline outline
	state   State
	guest   Slot
	own     Slot
	ctrl    Slot
	intent  Intent
}

// outline is what a program with another layout has to know (Succeed). From version 2 on it lies behind
// magic in every layout. Offsets count from the journal's beginning.
type outline struct {
	state, stateSize uint16 // State: a later version may lengthen it, and changes nothing in it
	_                uint32
	guest, own, ctrl slotOutline
}

// slotOutline tells of a slot. Step 0 is always the one in which nothing is under way but what has been taken.
type slotOutline struct {
	step, size, seq uint16 // of the words of these names
	take, reply     uint16 // of the counts of these transfers
	replying        uint16 // the step in which the answer is delivered
	request         uint32 // of what was taken
}

// Steps that another layout's program has to know.
const (
	GuestReplying   uint32 = 4
	ControlReplying uint32 = 5
)

func thisOutline() outline {
	var h header
	slot := func(at uintptr, replying uint32, request int) slotOutline {
		var s Slot
		count := unsafe.Offsetof(s.Take.count)
		return slotOutline{
			step: uint16(at + unsafe.Offsetof(s.Step)), size: uint16(at + unsafe.Offsetof(s.Size)), seq: uint16(at + unsafe.Offsetof(s.Seq)),
			take: uint16(at + unsafe.Offsetof(s.Take) + count), reply: uint16(at + unsafe.Offsetof(s.Reply) + count),
			replying: uint16(replying), request: uint32(request),
		}
	}
	return outline{
		state: uint16(unsafe.Offsetof(h.state)), stateSize: uint16(unsafe.Sizeof(h.state)),
		guest: slot(unsafe.Offsetof(h.guest), GuestReplying, offGuestCommand),
		own:   slot(unsafe.Offsetof(h.own), 0, offOwnCommand),
		ctrl:  slot(unsafe.Offsetof(h.ctrl), ControlReplying, offCtrlRequest),
	}
}

// Slot is one exchange. Which step means what is the owner's.
type Slot struct {
	Step  atomic.Uint32 // the step that is under way; stored last when a step is entered
	Size  atomic.Uint32 // bytes of the reply or of the own command
	Seq   atomic.Uint64 // number of the exchange, grows by at least one with each
	Take  Transfer      // request from the one who asks
	Send  Transfer      // request to the one who answers
	Await Transfer      // answer
	Reply Transfer      // answer to the one who asked
}

// State is what the sidecar knows about vTPM and QEMU. Single words: each is right by itself.
type State struct {
	Power    atomic.Uint32 // Off, Powered or Running
	Parked   atomic.Uint32 // 1: the guest's last command was TPM2_Shutdown, or its state was taken away
	Restored atomic.Uint32 // 1: volatile state was loaded since the last STOP
	Buffer   atomic.Uint32 // negotiated size of commands and responses
	Attached atomic.Uint32 // 1: the stored descriptors towards swtpm are set up
	Locality atomic.Uint32 // as QEMU set it
	PowerOns atomic.Uint32 // by the QEMU that is connected
	DataFD   atomic.Uint32 // 1: a SET_DATAFD is being worked on
	Commands atomic.Uint64 // TPM commands of the guest
	Refused  atomic.Uint64 // frames that were answered here
	Quotes   atomic.Uint64
	Unstored atomic.Uint64 // quotes whose record could not be written
	Restarts atomic.Uint64 // of the sidecar since QEMU connected
}

// Intent holds what a step stores before it acts, so that it acts once.
type Intent struct {
	Epoch atomic.Uint64 // the store's epoch before INIT
	Taken Parts         // of the vTPM's state that QEMU is taking away
	Given Parts         // of the one that it gives back; cleared by STOP
}

// Parts are the digests of the parts of a vTPM's state: permanent, volatile and saved.
type Parts [3][4]atomic.Uint64

// Clear makes all of them zero.
func (p *Parts) Clear() {
	for i := range p {
		p.Set(i, [32]byte{})
	}
}

// Set stores the digest of part i. To store it again after a death in between makes it whole.
func (p *Parts) Set(i int, digest [32]byte) {
	for k := range p[i] {
		p[i][k].Store(binary.NativeEndian.Uint64(digest[8*k:]))
	}
}

// Get gives the digests.
func (p *Parts) Get() (d [3][32]byte) {
	for i := range p {
		for k := range p[i] {
			binary.NativeEndian.PutUint64(d[i][8*k:], p[i][k].Load())
		}
	}
	return d
}

// Values of State.Power.
const (
	Off     uint32 = 0
	Powered uint32 = 1 // by INIT
	Running uint32 = 2 // TPM2_Startup succeeded
)

// The header fits its page, or this does not compile.
const _ = uint(pageSize - unsafe.Sizeof(header{}))
