package quote

import (
	"errors"
	"fmt"

	"virt-attest/attest"
)

// The numbers of TPM 2.0 Part 2 that are used here: TPM_GENERATED_VALUE (6.2), TPM_ST_ATTEST_QUOTE (6.9),
// TPM_RH_ENDORSEMENT (7.4), TPM_ALG_ID (6.3), TPM_ECC_CURVE (6.4).
const (
	generatedValue = 0xff544347
	attestQuote    = 0x8018
	rhEndorsement  = 0x4000000b

	algRSA      = 0x0001
	algAES      = 0x0006
	algNull     = 0x0010
	algSM4      = 0x0013
	algRSASSA   = 0x0014
	algRSAES    = 0x0015
	algRSAPSS   = 0x0016
	algOAEP     = 0x0017
	algECDSA    = 0x0018
	algECDH     = 0x0019
	algECDAA    = 0x001a
	algSM2      = 0x001b
	algSchnorr  = 0x001c
	algECMQV    = 0x001d
	algMGF1     = 0x0007
	algKDF1     = 0x0020 // KDF1_SP800_56A
	algKDF2     = 0x0021
	algKDF108   = 0x0022 // KDF1_SP800_108
	algECC      = 0x0023
	algCamellia = 0x0026

	curveP256 = 0x0003
	curveP384 = 0x0004
)

// The bits of TPMA_OBJECT (TPM 2.0 Part 2, section 8.3).
const (
	bitFixedTPM            = 1 << 1
	bitFixedParent         = 1 << 4
	bitSensitiveDataOrigin = 1 << 5
	bitRestricted          = 1 << 16
	bitDecrypt             = 1 << 17
	bitSign                = 1 << 18
	bitX509Sign            = 1 << 19
	bitsKnown              = bitFixedTPM | 1<<2 | bitFixedParent | bitSensitiveDataOrigin | 0x3f<<6 | bitRestricted | bitDecrypt | bitSign | bitX509Sign
)

// reader takes big-endian fields off the front of b. Past the end it gives zeros and is bad for
// good; it never allocates.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) number(size int) (v uint64) {
	for _, c := range r.bytes(size) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *reader) u8() uint8     { return uint8(r.number(1)) }
func (r *reader) u16() uint16   { return uint16(r.number(2)) }
func (r *reader) u32() uint32   { return uint32(r.number(4)) }
func (r *reader) u64() uint64   { return r.number(8) }
func (r *reader) sized() []byte { return r.bytes(int(r.u16())) } // TPM2B_*

// whole reports whether everything was there and nothing is left.
func (r *reader) whole() bool { return !r.bad && len(r.b) == 0 }

// statement is a TPMS_ATTEST with a TPMS_QUOTE_INFO (TPM 2.0 Part 2, sections 10.12.4 and 10.12.12). Its slices
// are those of the input.
type statement struct {
	signer, extraData        []byte
	clock                    uint64
	resetCount, restartCount uint32
	safe                     bool
	firmware                 uint64
	selections               []bankBits
	pcrDigest                []byte
}

// bankBits is a TPMS_PCR_SELECTION.
type bankBits struct {
	alg    attest.Alg
	bitmap []byte
}

// parseStatement reads a TPMS_ATTEST that says it is a quote and fills b exactly.
func parseStatement(b []byte) (*statement, error) {
	r := &reader{b: b}
	magic, kind := r.u32(), r.u16()
	switch {
	case r.bad || len(b) > attest.MaxQuote:
		return nil, fail(KindMalformed, "not a TPMS_ATTEST: %d bytes", len(b))
	case magic != generatedValue:
		return nil, fail(KindMagic, "magic is %#08x: this was not made inside a TPM", magic)
	case kind != attestQuote:
		return nil, fail(KindType, "attestation structure of type %#04x, not a quote", kind)
	}
	st := &statement{signer: r.sized(), extraData: r.sized(), clock: r.u64(), resetCount: r.u32(), restartCount: r.u32()}
	safe := r.u8()
	st.safe, st.firmware = safe == 1, r.u64()
	banks := r.u32()
	if banks > attest.MaxBanks {
		return nil, fail(KindPCRs, "the quote covers %d PCR banks, at most %d", banks, attest.MaxBanks)
	}
	for range banks {
		alg := attest.Alg(r.u16())
		st.selections = append(st.selections, bankBits{alg, r.bytes(int(r.u8()))})
	}
	st.pcrDigest = r.sized()
	if !r.whole() || safe > 1 {
		return nil, fail(KindMalformed, "the TPMS_ATTEST is cut short, has trailing bytes or no proper flag")
	}
	return st, nil
}

// signature is a TPMT_SIGNATURE (TPM 2.0 Part 2, section 11.3.4).
type signature struct {
	scheme uint16
	hash   attest.Alg
	rsa    []byte
	r, s   []byte
}

// parseSignature reads a TPMT_SIGNATURE by ECDSA, RSASSA or RSAPSS that fills b exactly.
func parseSignature(b []byte) (*signature, error) {
	r := &reader{b: b}
	sig := &signature{scheme: r.u16()}
	if r.bad {
		return nil, fail(KindMalformed, "no TPMT_SIGNATURE: %d bytes", len(b))
	}
	switch sig.scheme {
	case algECDSA:
		sig.hash, sig.r, sig.s = attest.Alg(r.u16()), r.sized(), r.sized()
	case algRSASSA, algRSAPSS:
		sig.hash, sig.rsa = attest.Alg(r.u16()), r.sized()
	default:
		return nil, fail(KindAlgorithm, "signed with scheme %#04x", sig.scheme)
	}
	if !r.whole() {
		return nil, fail(KindMalformed, "the TPMT_SIGNATURE is cut short or has trailing bytes")
	}
	return sig, nil
}

// public is the TPMT_PUBLIC (TPM 2.0 Part 2, section 12.2.4) of an RSA or ECC key.
type public struct {
	kind       uint16
	nameAlg    attest.Alg
	attributes uint32
	scheme     uint16
	hash       attest.Alg // of scheme
	keyBits    uint16     // RSA
	exponent   uint32     // RSA
	modulus    []byte     // RSA
	curve      uint16     // ECC
	x, y       []byte     // ECC
}

// parsePublic reads a TPMT_PUBLIC of an RSA or ECC key that fills b exactly.
func parsePublic(b []byte) (*public, error) {
	if len(b) > attest.MaxPublic {
		return nil, fmt.Errorf("%d bytes, at most %d", len(b), attest.MaxPublic)
	}
	r := &reader{b: b}
	p := &public{kind: r.u16(), nameAlg: attest.Alg(r.u16()), attributes: r.u32()}
	r.sized() // authPolicy
	r.symmetric()
	p.scheme, p.hash = r.scheme()
	switch p.kind {
	case algRSA:
		p.keyBits, p.exponent, p.modulus = r.u16(), r.u32(), r.sized()
	case algECC:
		p.curve = r.u16()
		r.kdf()
		p.x, p.y = r.sized(), r.sized()
	default:
		return nil, fmt.Errorf("a key of type %#04x, neither RSA nor ECC", p.kind)
	}
	if !r.whole() {
		return nil, errors.New("cut short, with trailing bytes or unknown parameters")
	}
	return p, nil
}

// symmetric skips a TPMT_SYM_DEF_OBJECT.
func (r *reader) symmetric() {
	switch r.u16() {
	case algNull:
	case algAES, algSM4, algCamellia:
		r.bytes(4) // key bits, mode
	default:
		r.bad = true
	}
}

// scheme reads a TPMT_RSA_SCHEME or TPMT_ECC_SCHEME.
func (r *reader) scheme() (scheme uint16, hash attest.Alg) {
	switch scheme = r.u16(); scheme {
	case algNull, algRSAES:
	case algRSASSA, algRSAPSS, algOAEP, algECDSA, algECDH, algSM2, algSchnorr, algECMQV:
		hash = attest.Alg(r.u16())
	case algECDAA:
		hash = attest.Alg(r.u16())
		r.u16() // count
	default:
		r.bad = true
	}
	return scheme, hash
}

// kdf skips a TPMT_KDF_SCHEME.
func (r *reader) kdf() {
	switch r.u16() {
	case algNull:
	case algMGF1, algKDF1, algKDF2, algKDF108:
		r.u16() // hash
	default:
		r.bad = true
	}
}
