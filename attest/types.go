package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// UUID identifies a VM on its host (RFC 9562, as libvirt prints it). It is a
// label, never an identity: the vTPM's endorsement key is.
type UUID [16]byte

// ParseUUID reads the 36-character form with dashes in either letter case. Every
// other form is refused, so that one VM has one spelling.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, fmt.Errorf("attest: %q is not a UUID", clip(s))
	}
	if _, err := hex.Decode(u[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])); err != nil {
		return UUID{}, fmt.Errorf("attest: %q is not a UUID", clip(s))
	}
	return u, nil
}

// String gives the lower-case form with dashes.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// MarshalText and UnmarshalText give the UUID its text form in JSON and TOML.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (u *UUID) UnmarshalText(b []byte) error {
	v, err := ParseUUID(string(b))
	if err == nil {
		*u = v
	}
	return err
}

// Compare orders UUIDs by their bytes; every list of VMs in the protocol is in this order.
func (u UUID) Compare(o UUID) int { return bytes.Compare(u[:], o[:]) }

// Nonce is the Verifier's challenge: 32 bytes from a cryptographic random
// source, single use.
type Nonce [32]byte

// String gives the nonce in hexadecimal.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// MarshalText gives lower-case hexadecimal.
func (n Nonce) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (n *Nonce) UnmarshalText(b []byte) error { return unhex(n[:], b) }

// Digest is a SHA-256 value, the only hash that virt-attest makes of its own
// structures. TPM and IMA digests of other algorithms are plain byte slices.
type Digest [sha256.Size]byte

// String gives the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText gives lower-case hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(b []byte) error { return unhex(d[:], b) }

func unhex(dst, text []byte) error {
	if hex.DecodedLen(len(text)) != len(dst) || len(text)%2 != 0 {
		return fmt.Errorf("attest: %q is not %d bytes in hexadecimal", clip(string(text)), len(dst))
	}
	b := make([]byte, len(dst))
	if _, err := hex.Decode(b, text); err != nil {
		return fmt.Errorf("attest: %q is not %d bytes in hexadecimal", clip(string(text)), len(dst))
	}
	copy(dst, b)
	return nil
}

// IsZero reports whether d is all zero, which stands for "no digest".
func (d Digest) IsZero() bool { return d == Digest{} }

// Name is a TPM object name: nameAlg (2 bytes) followed by the hash of the public area
// (TPM 2.0 Part 1, section 16).
type Name []byte

// String gives the name in hexadecimal.
func (n Name) String() string { return hex.EncodeToString(n) }

// MarshalText gives lower-case hexadecimal.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (n *Name) UnmarshalText(b []byte) error { return (*HexBytes)(n).UnmarshalText(b) }

// Scheme says how VM and host are attested together.
type Scheme uint8

// The schemes. The numbers are part of the signed structures.
const (
	SchemeHost      Scheme = 1 // the host alone
	SchemeSEPA      Scheme = 2 // secure separate attestation, batched (paper, steps 1-5)
	SchemeHYPA      Scheme = 3 // hypervisor-based attestation
	SchemeSEPAExact Scheme = 4 // SEPA for one VM with the paper's own composite H(n || hash)
)

var schemeNames = map[Scheme]string{
	SchemeHost: "host", SchemeSEPA: "sepa", SchemeHYPA: "hypa", SchemeSEPAExact: "sepa-exact",
}

// ParseScheme reads "host", "sepa", "hypa" or "sepa-exact".
func ParseScheme(s string) (Scheme, error) {
	for k, v := range schemeNames {
		if v == s {
			return k, nil
		}
	}
	return 0, fmt.Errorf("attest: unknown scheme %q (host, sepa, hypa, sepa-exact)", clip(s))
}

func (s Scheme) String() string {
	if n, ok := schemeNames[s]; ok {
		return n
	}
	return fmt.Sprintf("scheme(%d)", uint8(s))
}

// MarshalText gives the scheme its name in JSON and TOML.
func (s Scheme) MarshalText() ([]byte, error) {
	if _, ok := schemeNames[s]; !ok {
		return nil, fmt.Errorf("attest: %v has no name", s)
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *Scheme) UnmarshalText(b []byte) error {
	v, err := ParseScheme(string(b))
	if err == nil {
		*s = v
	}
	return err
}

// PCRBank holds values of PCRs of one bank, in ascending order of index, without repeats.
type PCRBank struct {
	Alg  Alg   `cbor:"1,keyasint" json:"alg"`
	PCRs []PCR `cbor:"2,keyasint" json:"pcrs"`
}

// PCR is one register: Index 0-23, Value of the bank's digest size.
type PCR struct {
	Index uint8    `cbor:"1,keyasint" json:"index"`
	Value HexBytes `cbor:"2,keyasint" json:"value"`
}

// HexBytes is a byte string that JSON shows in hexadecimal.
type HexBytes []byte

// MarshalText gives lower-case hexadecimal.
func (h HexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads hexadecimal.
func (h *HexBytes) UnmarshalText(b []byte) error {
	v, err := hex.DecodeString(string(b))
	if err == nil {
		*h = v
	}
	return err
}

func (h HexBytes) String() string { return hex.EncodeToString(h) }

// Get returns the value of PCR index, or nil where the bank does not hold it.
func (b PCRBank) Get(index uint8) []byte {
	for _, p := range b.PCRs {
		if p.Index == index {
			return p.Value
		}
	}
	return nil
}

// Bank returns the bank of alg among banks, or false.
func Bank(banks []PCRBank, alg Alg) (PCRBank, bool) {
	for _, b := range banks {
		if b.Alg == alg {
			return b, true
		}
	}
	return PCRBank{}, false
}

// PCRResettable reports whether software can set PCR index back without a reset of the machine: 16 and
// 23 always, 17-22 at the localities of a dynamic launch (PC Client Platform TPM Profile, section 3.7). No
// policy may take such a PCR's value for a statement about the past.
func PCRResettable(index uint8) bool { return index >= 16 && index <= 23 }

// PCRSelection names PCRs of one bank, ascending.
type PCRSelection struct {
	Alg  Alg     `cbor:"1,keyasint" json:"alg"`
	PCRs []uint8 `cbor:"2,keyasint" json:"pcrs"`
}

// ParsePCRs reads PCR numbers and ranges in ascending order, such as "0-7,9".
func ParsePCRs(list string) ([]uint8, error) {
	var out []uint8
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 8)
		to, err2 := strconv.ParseUint(last, 10, 8)
		if err1 != nil || err2 != nil || from > to || to >= PCRCount || len(out) > 0 && from <= uint64(out[len(out)-1]) {
			return nil, fmt.Errorf("%q: PCRs are numbers and ranges from 0 to %d, ascending", list, PCRCount-1)
		}
		for p := from; p <= to; p++ {
			out = append(out, uint8(p))
		}
	}
	return out, nil
}

// CheckBanks refuses a list of banks that is not well formed: unknown or repeated bank,
// index out of 0-23, not ascending, value of the wrong size.
func CheckBanks(banks []PCRBank) error {
	if len(banks) > MaxBanks {
		return fmt.Errorf("%w: %d PCR banks, at most %d", ErrMalformed, len(banks), MaxBanks)
	}
	seen := make([]Alg, 0, len(banks))
	for _, b := range banks {
		if b.Alg.Size() == 0 || slices.Contains(seen, b.Alg) {
			return fmt.Errorf("%w: PCR bank %v is unknown or given twice", ErrMalformed, b.Alg)
		}
		seen = append(seen, b.Alg)
		last := -1
		for _, p := range b.PCRs {
			if int(p.Index) <= last || p.Index >= PCRCount || len(p.Value) != b.Alg.Size() {
				return fmt.Errorf("%w: PCR %d of bank %v is out of order, out of range or of the wrong size", ErrMalformed, p.Index, b.Alg)
			}
			last = int(p.Index)
		}
	}
	return nil
}

// Quote is what TPM2_Quote returned, exactly as it crossed the TPM's boundary
// (TPM 2.0 Part 3, section 18.4): nothing is re-encoded on its way to the Verifier.
type Quote struct {
	Attest    []byte `cbor:"1,keyasint" json:"attest"`    // TPMS_ATTEST, without the TPM2B size
	Signature []byte `cbor:"2,keyasint" json:"signature"` // TPMT_SIGNATURE
}

// ErrQuoteParameters says that a response's parameters are not those of TPM2_Quote.
var ErrQuoteParameters = errors.New("attest: not the parameters of a TPM2_Quote response")

// ParseQuoteParameters splits the parameter area of a TPM2_Quote response:
// TPM2B_ATTEST followed by TPMT_SIGNATURE up to the end. It looks at sizes only.
func ParseQuoteParameters(p []byte) (Quote, error) {
	if len(p) < 2 || len(p) > MaxQuote {
		return Quote{}, ErrQuoteParameters
	}
	n := int(binary.BigEndian.Uint16(p))
	if n == 0 || len(p) < 2+n+2 {
		return Quote{}, ErrQuoteParameters
	}
	return Quote{Attest: bytes.Clone(p[2 : 2+n]), Signature: bytes.Clone(p[2+n:])}, nil
}

// Parameters gives the parameter area back, byte for byte.
func (q Quote) Parameters() []byte {
	p := make([]byte, 0, 2+len(q.Attest)+len(q.Signature))
	p = binary.BigEndian.AppendUint16(p, uint16(len(q.Attest)))
	p = append(p, q.Attest...)
	return append(p, q.Signature...)
}

// Hash is the paper's VmAttestationHash (SEPA step 2): SHA-256 over the response's
// parameter area. It is made where the quote crosses the vTPM's boundary and again by
// the Verifier over what the guest sent; any change between them breaks the link.
func (q Quote) Hash() Digest { return sha256.Sum256(q.Parameters()) }

// Clean makes text of a peer fit for a field of an Evidence and for a terminal: valid UTF-8, no
// control characters, at most MaxText bytes. Who fills an Evidence cleans what a guest said, so that no
// guest can make its host's answer malformed.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s[:min(len(s), 4*MaxText)], "?"))
	for len(s) > MaxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

func clip(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
