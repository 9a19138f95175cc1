package swtpmctl

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors about what a peer sent; the peer's fault in every case.
var (
	ErrUnknown   = errors.New("swtpmctl: unknown control command")
	ErrMalformed = errors.New("swtpmctl: malformed control message")
)

// Word reads the big-endian word at offset i, or 0 where b is too short for it.
func Word(b []byte, i int) uint32 {
	if i < 0 || i+4 > len(b) {
		return 0
	}
	return binary.BigEndian.Uint32(b[i:])
}

// CommandOf gives the command of a request of at least 4 bytes.
func CommandOf(request []byte) Command { return Command(Word(request, 0)) }

// RequestSize tells from the first bytes of a request how long it is: up to n bytes are to be
// read before more can be told, and the request is whole if n is len(prefix).
// Errors: ErrUnknown (the size of an unknown command is unknown too), ErrMalformed.
func RequestSize(prefix []byte) (n int, err error) {
	if len(prefix) < 4 {
		return 4, nil
	}
	s, ok := shapes[CommandOf(prefix)]
	if !ok {
		return 0, fmt.Errorf("%w %#x", ErrUnknown, Word(prefix, 0))
	}
	if s.short != 0 && len(prefix) == s.short {
		return s.short, nil
	}
	if len(prefix) < s.request {
		return s.request, nil
	}
	switch CommandOf(prefix) {
	case SetStateBlob:
		return bounded(16, Word(prefix, 12), MaxBlob)
	case HashData:
		return bounded(8, Word(prefix, 4), MaxHashData)
	}
	return s.request, nil
}

// ReplySize tells from the first bytes of a reply to command how long it is, as RequestSize
// does. An error reply is 4 bytes, or as long as a good one without data (GET_STATEBLOB); it ends
// where swtpm's one write ended.
func ReplySize(command Command, prefix []byte) (n int, err error) {
	fixed := FixedReply(command)
	if len(prefix) < 4 {
		return fixed, nil
	}
	if ResultOf(prefix) != Success {
		return len(prefix), nil
	}
	if len(prefix) < fixed {
		return fixed, nil
	}
	switch command {
	case GetStateBlob:
		return bounded(16, Word(prefix, 12), MaxBlob)
	case GetInfo:
		return bounded(12, Word(prefix, 8), MaxInfo)
	}
	return fixed, nil
}

func bounded(fixed int, length uint32, limit int) (int, error) {
	if int64(length) > int64(limit) {
		return 0, fmt.Errorf("%w: %d bytes of data, at most %d", ErrMalformed, length, limit)
	}
	return fixed + int(length), nil
}

// FixedReply is the size of a good reply without the data that some carry, in bytes.
func FixedReply(command Command) int { return max(4, shapes[command].reply) }

// ResultOf gives the result of a reply; a reply without one has failed.
func ResultOf(reply []byte) Result {
	if len(reply) < 4 {
		return Fail
	}
	return Result(Word(reply, 0))
}

// Error is a reply that says r and nothing else, as swtpm sends it.
func Error(r Result) []byte { return binary.BigEndian.AppendUint32(nil, uint32(r)) }
