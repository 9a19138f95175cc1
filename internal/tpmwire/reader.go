package tpmwire

import "encoding/binary"

// reader takes big-endian fields off b. After the end it gives zeros and sets short, so that a
// structure is read to its end and checked once.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// sized takes a TPM2B: a u16 size and as many bytes.
func (r *reader) sized() []byte { return r.take(int(r.u16())) }

// done tells whether everything was there and nothing is left.
func (r *reader) done() bool { return !r.short && len(r.b) == 0 }
