package swtpmctl

import (
	"encoding/binary"
	"fmt"
)

// StateType says which part of a TPM's state a blob is.
type StateType uint32

// The state blobs.
const (
	Permanent StateType = 1
	Volatile  StateType = 2
	SaveState StateType = 3
)

// Flags of requests.
const (
	InitDeleteVolatile = 1 // INIT: the volatile state on disk is stale
	blobFlags          = 3 // GET/SET_STATEBLOB: decrypted 1, encrypted 2
	maxLocality        = 4
	blobHeader         = 10 // u8 version, u8 least version, u16 header size, u16 flags, u32 total size
)

// Check refuses a whole request whose content swtpm must not see. It returns what to answer,
// Success where the request may pass, and why.
func Check(request []byte) (Result, error) {
	n, err := RequestSize(request)
	if err != nil {
		return BadOrdinal, err
	}
	if n != len(request) {
		return BadParameter, fmt.Errorf("%w: %v of %d bytes", ErrMalformed, CommandOf(request), len(request))
	}
	switch c := CommandOf(request); c {
	case Init:
		return only(c, Word(request, 4)&^InitDeleteVolatile == 0)
	case SetLocality:
		if request[4] > maxLocality {
			return BadLocality, fmt.Errorf("%w: locality %d", ErrMalformed, request[4])
		}
	case GetStateBlob:
		return only(c, blobRequest(request))
	case SetStateBlob:
		return only(c, blobRequest(request) && wellFormedBlob(request[16:]))
	}
	return Success, nil
}

func only(c Command, ok bool) (Result, error) {
	if !ok {
		return BadParameter, fmt.Errorf("%w: content of %v", ErrMalformed, c)
	}
	return Success, nil
}

// blobRequest looks at flags and type. QEMU asks for nothing else than whole blobs.
func blobRequest(request []byte) bool {
	t := BlobType(request)
	return Word(request, 4)&^blobFlags == 0 && t >= Permanent && t <= SaveState
}

// BlobType gives the type in a GET_STATEBLOB or SET_STATEBLOB request.
func BlobType(request []byte) StateType { return StateType(Word(request, 8)) }

// wellFormedBlob holds a blob's header to the bytes that are there: swtpm indexes with it.
func wellFormedBlob(blob []byte) bool {
	if len(blob) < blobHeader {
		return false
	}
	header := int(binary.BigEndian.Uint16(blob[2:]))
	return header >= blobHeader && header <= len(blob) && int64(Word(blob, 6)) == int64(len(blob))
}
