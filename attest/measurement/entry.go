package measurement

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// IMAPCR is the PCR that IMA measures into (CONFIG_IMA_MEASURE_PCR_IDX).
const IMAPCR = 10

// pcrCount is the number of PCRs; the index tells the byte order of an entry.
const pcrCount = 24

var (
	// ErrIncomplete says that the bytes end inside an entry: more of the list is needed.
	ErrIncomplete = errors.New("measurement: the list ends inside an entry")
	// ErrMalformed wraps every error about bytes that no kernel writes.
	ErrMalformed = errors.New("measurement: malformed entry")
)

// raw is an entry split into its parts, all of them slices of the list.
type raw struct {
	pcr    uint32
	digest []byte // template digest, as listed
	name   []byte // template name
	data   []byte // template data; for "ima": 20 bytes of digest, u32 length, name
	size   int
	big    bool // big-endian lengths
}

// NextEntry gives the length in bytes of the first entry of b, a binary measurement list
// whose template digests have templateHashSize bytes (20 for the kernel's default list).
// The error is ErrIncomplete if b, which may be empty, ends inside the entry, and wraps
// ErrMalformed if more bytes would not help. It allocates nothing.
func NextEntry(b []byte, templateHashSize int) (entryLen int, err error) {
	var r raw
	if err := split(b, templateHashSize, &r); err != nil {
		return 0, err
	}
	return r.size, nil
}

// split reads the first entry of b: u32 PCR, template digest, u32 length and template
// name, then u32 length and data; the "ima" template has no data length.
func split(b []byte, hashSize int, r *raw) error {
	if hashSize < 16 || hashSize > 64 {
		return fmt.Errorf("%w: template digests of %d bytes", ErrMalformed, hashSize)
	}
	if len(b) < 4 {
		return ErrIncomplete
	}
	r.pcr, r.big = binary.LittleEndian.Uint32(b), false
	if r.pcr >= pcrCount {
		r.pcr, r.big = bits.ReverseBytes32(r.pcr), true
	}
	if r.pcr >= pcrCount {
		return fmt.Errorf("%w: PCR %#x", ErrMalformed, r.pcr)
	}
	at := 4 + hashSize
	if len(b) < at+4 {
		return ErrIncomplete
	}
	r.digest = b[4:at:at]
	n := int(r.u32(b[at:]))
	at += 4
	if n == 0 || n > MaxTemplateName {
		return fmt.Errorf("%w: template name of %d bytes", ErrMalformed, n)
	}
	if len(b) < at+n {
		return ErrIncomplete
	}
	r.name = b[at : at+n : at+n]
	return splitData(b, at+n, r)
}

// splitData reads what follows the template name at b[at:].
func splitData(b []byte, at int, r *raw) error {
	start, length := at+4, at
	if string(r.name) == "ima" {
		start, length = at, at+20
	}
	if len(b) < length+4 {
		return ErrIncomplete
	}
	n := int(r.u32(b[length:]))
	if n > MaxEntry-length-4 || start == at && n >= maxNamePadded {
		return fmt.Errorf("%w: %d bytes of template data", ErrMalformed, n)
	}
	end := length + 4 + n
	if len(b) < end {
		return ErrIncomplete
	}
	r.data, r.size = b[start:end:end], end
	return nil
}

// violation reports that the entry is one: its listed digest is all zero.
func (r *raw) violation() bool {
	for _, c := range r.digest {
		if c != 0 {
			return false
		}
	}
	return true
}

func (r *raw) u32(b []byte) uint32 {
	if r.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}
