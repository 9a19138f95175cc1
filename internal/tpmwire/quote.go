package tpmwire

import (
	"encoding/binary"
	"fmt"
)

// Parameters gives the parameter area of a successful response without handles, such as
// TPM2_Quote's: all bytes behind the header, or, with sessions, as many as parameterSize says
// (Part 1, section 18.10). The result lies in response.
func Parameters(response []byte) ([]byte, error) {
	if len(response) < HeaderSize || RCOf(response) != RCSuccess {
		return nil, fmt.Errorf("%w: not a successful response", ErrMalformed)
	}
	p := response[HeaderSize:]
	if binary.BigEndian.Uint16(response) != TagSessions {
		return p, nil
	}
	if len(p) < 4 {
		return nil, fmt.Errorf("%w: no parameterSize", ErrMalformed)
	}
	n := binary.BigEndian.Uint32(p)
	if int64(n) > int64(len(p)-4) {
		return nil, fmt.Errorf("%w: parameterSize %d in %d bytes", ErrMalformed, n, len(p)-4)
	}
	return p[4 : 4+n], nil
}

// Attested is what a TPMS_ATTEST says about itself (Part 2, section 10.12.12). The fields lie in
// the bytes that were read.
type Attested struct {
	QualifiedSigner []byte // name of the signing key with its ancestry
	ExtraData       []byte // the caller's qualifying data
}

// The head of a TPMS_ATTEST.
const (
	generated   = 0xff544347 // TPM_GENERATED_VALUE
	attestQuote = 0x8018     // TPM_ST_ATTEST_QUOTE
)

// QuoteAttested reads the beginning of a TPM2_Quote response's parameters: a TPM2B_ATTEST. It
// fails where the first parameter was encrypted by a session; the bytes were the TPM's own all the same.
func QuoteAttested(parameters []byte) (Attested, error) {
	r := reader{b: parameters}
	a := reader{b: r.sized()}
	if a.u32() != generated || a.u16() != attestQuote {
		return Attested{}, fmt.Errorf("%w: not a quote in the clear", ErrMalformed)
	}
	out := Attested{QualifiedSigner: a.sized(), ExtraData: a.sized()}
	if r.short || a.short {
		return Attested{}, fmt.Errorf("%w: quote", ErrMalformed)
	}
	return out, nil
}
