package tpmwire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Tags of frames (Part 2, section 6.9).
const (
	TagRspCommand uint16 = 0x00c4 // only in the answer to a frame with a bad tag
	TagNoSessions uint16 = 0x8001
	TagSessions   uint16 = 0x8002
)

// Code is a command code (Part 2, section 6.5.2).
type Code uint32

// The command codes that are looked at.
const (
	Startup       Code = 0x0144
	Shutdown      Code = 0x0145
	NVRead        Code = 0x014e
	Quote         Code = 0x0158
	NVReadPublic  Code = 0x0169
	ReadPublic    Code = 0x0173
	GetCapability Code = 0x017a
	PCRRead       Code = 0x017e
	// VendorSetLocality changes swtpm's locality from inside the data channel.
	VendorSetLocality Code = 0x20001000
)

// RC is a response code (Part 2, section 6.6).
type RC uint32

// The response codes that are looked at or made here.
const (
	RCSuccess     RC = 0
	RCBadTag      RC = 0x01e
	RCInitialize  RC = 0x100
	RCFailure     RC = 0x101
	RCCommandSize RC = 0x142
	RCCommandCode RC = 0x143
	RCRetry       RC = 0x922
)

func (rc RC) Error() string { return fmt.Sprintf("TPM response code %#x", uint32(rc)) }

// ErrMalformed says that a structure does not fit the bytes it is in.
var ErrMalformed = errors.New("tpmwire: malformed")

// Size reads the size field of a frame of at least 6 bytes.
func Size(frame []byte) uint32 { return binary.BigEndian.Uint32(frame[2:]) }

// CodeOf gives the command code of a frame of at least HeaderSize bytes.
func CodeOf(command []byte) Code { return Code(binary.BigEndian.Uint32(command[6:])) }

// RCOf gives the response code; a response that has none has failed.
func RCOf(response []byte) RC {
	if len(response) < HeaderSize {
		return RCFailure
	}
	return RC(binary.BigEndian.Uint32(response[6:]))
}

// Judgement says what to do with bytes that should be one command.
type Judgement struct {
	Whole  bool // the bytes are one command that may pass, or are refused
	Refuse RC   // not RCSuccess: refused, with this answer
}

// Judge looks at all bytes that have arrived since the last response. A frame passes that is
// one whole command with a command's tag, of at most limit bytes. swtpm would take more: two
// commands at once, or a prefix that changes the locality.
func Judge(b []byte, limit int) Judgement {
	if len(b) >= 2 && !commandTag(b) {
		return Judgement{Whole: true, Refuse: RCBadTag}
	}
	if len(b) < HeaderSize {
		return Judgement{}
	}
	switch n := int64(Size(b)); {
	case n < HeaderSize || n > int64(limit) || n < int64(len(b)):
		return Judgement{Whole: true, Refuse: RCCommandSize}
	case n > int64(len(b)):
		return Judgement{}
	case CodeOf(b) == VendorSetLocality:
		return Judgement{Whole: true, Refuse: RCCommandCode}
	}
	return Judgement{Whole: true}
}

func commandTag(b []byte) bool {
	tag := binary.BigEndian.Uint16(b)
	return tag == TagNoSessions || tag == TagSessions
}

// ResponseWhole tells whether b is one whole response of at most limit bytes. ErrMalformed where
// no more bytes can make it one.
func ResponseWhole(b []byte, limit int) (bool, error) {
	if len(b) >= 2 && !commandTag(b) && binary.BigEndian.Uint16(b) != TagRspCommand {
		return false, fmt.Errorf("%w: response tag", ErrMalformed)
	}
	if len(b) < HeaderSize {
		return false, nil
	}
	n := int64(Size(b))
	if n < HeaderSize || n > int64(limit) || n < int64(len(b)) {
		return false, fmt.Errorf("%w: response of size %d in %d bytes, at most %d", ErrMalformed, n, len(b), limit)
	}
	return n == int64(len(b)), nil
}

// AppendError appends the response that a TPM gives with rc.
func AppendError(b []byte, rc RC) []byte {
	tag := TagNoSessions
	if rc == RCBadTag {
		tag = TagRspCommand
	}
	b = binary.BigEndian.AppendUint16(b, tag)
	b = binary.BigEndian.AppendUint32(b, HeaderSize)
	return binary.BigEndian.AppendUint32(b, uint32(rc))
}
