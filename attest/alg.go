package attest

import (
	"crypto"
	"fmt"

	// The hash functions that Alg.Hash hands out.
	_ "crypto/sha1" //nolint:gosec // IMA logs carry SHA-1: replayed, and trusted for nothing
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// Alg is a hash algorithm by its TPM_ALG_ID (TCG Algorithm Registry).
type Alg uint16

// The hash algorithms whose PCR banks are understood. SHA-1 is replayed, because
// IMA logs carry it, and trusted for nothing.
const (
	SHA1   Alg = 0x0004
	SHA256 Alg = 0x000b
	SHA384 Alg = 0x000c
	SHA512 Alg = 0x000d
)

var algs = map[Alg]struct {
	name string
	hash crypto.Hash
}{
	SHA1: {"sha1", crypto.SHA1}, SHA256: {"sha256", crypto.SHA256},
	SHA384: {"sha384", crypto.SHA384}, SHA512: {"sha512", crypto.SHA512},
}

// ParseAlg reads "sha1", "sha256", "sha384" or "sha512".
func ParseAlg(s string) (Alg, error) {
	for a, v := range algs {
		if v.name == s {
			return a, nil
		}
	}
	return 0, fmt.Errorf("attest: unknown hash algorithm %q", clip(s))
}

// Size is the digest size in bytes, 0 for an algorithm that is not known.
func (a Alg) Size() int {
	if v, ok := algs[a]; ok {
		return v.hash.Size()
	}
	return 0
}

// Hash gives the hash function, or false for an algorithm that is not known.
func (a Alg) Hash() (crypto.Hash, bool) { v, ok := algs[a]; return v.hash, ok }

// Strong says whether the algorithm is trusted for anything: SHA-256 and up.
func (a Alg) Strong() bool { return a == SHA256 || a == SHA384 || a == SHA512 }

func (a Alg) String() string {
	if v, ok := algs[a]; ok {
		return v.name
	}
	return fmt.Sprintf("alg(%#04x)", uint16(a))
}

// MarshalText gives the algorithm its name in JSON; none (0) is the empty text.
func (a Alg) MarshalText() ([]byte, error) {
	if a == 0 {
		return []byte{}, nil
	}
	if a.Size() == 0 {
		return nil, fmt.Errorf("attest: %v has no name", a)
	}
	return []byte(a.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (a *Alg) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = 0
		return nil
	}
	v, err := ParseAlg(string(b))
	if err == nil {
		*a = v
	}
	return err
}
