// Package filesig verifies signatures of files as IMA lists them in the "sig" field of an entry: the
// file's security.ima attribute (Linux, security/integrity/integrity.h, struct signature_v2_hdr).
//
//	u8 type: 3 IMA, 6 fs-verity | u8 version: 2, 3 | u8 hash | u32 key ID | u16 size | signature
//
// Version 2 signs the file's digest, version 3 the digest of type, hash and digest (struct ima_file_id); fs-verity
// digests are signed by version 3 only. Signatures are RSA PKCS #1 v1.5 or ECDSA (ASN.1). What is verified is that the owner of a
// key signed this digest: not for which path, and not when.
//
// A listed signature is what the file's owner put there. Only Verify says that it is one; the key ID
// in it only chooses among the keys.
package filesig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
)

// Bounds on signatures and keys.
const (
	MaxSignature = 1024    // bytes, with the header
	MaxKey       = 8 << 10 // a certificate or public key, DER or PEM, bytes
	minRSA       = 2048    // bits
	maxRSA       = 4096    // bits: bounds the work of one verification
)

var (
	// ErrNone says that there is no signature of a kind that is understood: none at all, a plain hash, an HMAC.
	ErrNone = errors.New("no signature")
	// ErrUnknownKey says that no key has the ID that the signature names.
	ErrUnknownKey = errors.New("signed by an unknown key")
	// ErrBad says that it is no signature of this digest by the key that it names, or cannot be read.
	ErrBad = errors.New("the signature does not hold")
)

// Types and versions of signatures.
const (
	typeIMA    = 3
	typeVerity = 6
	header     = 9
)

// hashes are the kernel's numbers (include/uapi/linux/hash_info.h) for the hashes that signatures are
// believed by. SHA-1 and shorter ones are not among them.
var hashes = map[byte]struct {
	hash crypto.Hash
	name string
}{
	4: {crypto.SHA256, "sha256"}, 5: {crypto.SHA384, "sha384"}, 6: {crypto.SHA512, "sha512"},
}

// KeyID gives the ID of the key that sig names, or false if sig is no signature.
func KeyID(sig []byte) (id [4]byte, ok bool) {
	if len(sig) < header || sig[0] != typeIMA && sig[0] != typeVerity {
		return id, false
	}
	return [4]byte(sig[3:7]), true
}

// Verify holds sig, the sig field of an entry, against the entry's digest; alg is the digest's algorithm as
// measurement.Entry.DigestAlg gives it ("sha256", "verity:sha256"). It gives the key that has signed.
// Errors are ErrNone, ErrUnknownKey and ErrBad, wrapped.
func Verify(sig []byte, alg string, digest []byte, keys *Keys) (*Key, error) {
	id, ok := KeyID(sig)
	if !ok {
		return nil, ErrNone
	}
	candidates := keys.byID[id]
	if len(candidates) == 0 {
		return nil, fmt.Errorf("%w, ID %x", ErrUnknownKey, id)
	}
	hash, signed, err := statement(sig, alg, digest)
	if err != nil {
		return nil, err
	}
	for _, k := range candidates {
		if k.verify(hash, signed, sig[header:]) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%w: it names key %x, which did not sign this content", ErrBad, id)
}

// statement gives what the signature must be of.
func statement(sig []byte, alg string, digest []byte) (crypto.Hash, []byte, error) {
	h, known := hashes[sig[2]]
	if !known {
		return 0, nil, fmt.Errorf("%w: it is by hash %d, which is not SHA-256, SHA-384 or SHA-512", ErrBad, sig[2])
	}
	if n := int(binary.BigEndian.Uint16(sig[7:])); len(sig) > MaxSignature || n != len(sig)-header {
		return 0, nil, fmt.Errorf("%w: it says %d bytes and has %d", ErrBad, n, len(sig)-header)
	}
	if len(digest) != h.hash.Size() {
		return 0, nil, fmt.Errorf("%w: it is of a digest by %s, the entry has one by %s", ErrBad, h.name, alg)
	}
	switch {
	case sig[0] == typeIMA && sig[1] == 2 && alg == h.name:
		return h.hash, digest, nil
	case sig[0] == typeIMA && sig[1] == 3 && alg == h.name, sig[0] == typeVerity && sig[1] == 3 && alg == "verity:"+h.name:
		return h.hash, fileID(h.hash, sig[0], sig[2], digest), nil
	}
	return 0, nil, fmt.Errorf("%w: type %d, version %d, %s is not for a digest by %s", ErrBad, sig[0], sig[1], h.name, alg)
}

// fileID is the digest of a struct ima_file_id without its unused end.
func fileID(h crypto.Hash, typ, alg byte, digest []byte) []byte {
	return sum(h, append([]byte{typ, alg}, digest...))
}

func sum(h crypto.Hash, b []byte) []byte {
	switch h {
	case crypto.SHA256:
		d := sha256.Sum256(b)
		return d[:]
	case crypto.SHA384:
		d := sha512.Sum384(b)
		return d[:]
	case crypto.SHA512:
		d := sha512.Sum512(b)
		return d[:]
	}
	return nil
}

// HashOf reports whether digest is that of b by alg ("sha256", "sha384", "sha512"); by any other alg it is not.
func HashOf(alg string, digest, b []byte) bool {
	for _, h := range hashes {
		if h.name == alg {
			return bytes.Equal(sum(h.hash, b), digest)
		}
	}
	return false
}

func (k *Key) verify(h crypto.Hash, digest, sig []byte) bool {
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, h, digest, sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, sig)
	}
	return false
}
