package filesig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // key IDs are the end of SHA-1 values; they only choose among keys
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// Key is a public key that signatures are verified by.
type Key struct {
	DER    []byte // as it was given, certificate or public key
	public crypto.PublicKey
	ids    [][4]byte
	spki   [sha256.Size]byte
}

// ParseKey reads an X.509 certificate or a public key (SubjectPublicKeyInfo), in DER or as one PEM
// block. Of a certificate only the key counts: nobody has to have issued it, and it does not expire. RSA keys have
// 2048 to 4096 bits, ECDSA keys are on P-256, P-384 or P-521.
func ParseKey(b []byte) (*Key, error) {
	if len(b) > MaxKey {
		return nil, fmt.Errorf("key over %d bytes", MaxKey)
	}
	if block, rest := pem.Decode(b); block != nil {
		if len(rest) > 0 || block.Type != "CERTIFICATE" && block.Type != "PUBLIC KEY" {
			return nil, errors.New("key is not one PEM block, CERTIFICATE or PUBLIC KEY")
		}
		b = block.Bytes
	}
	k := &Key{DER: slices.Clone(b)}
	if err := k.parse(); err != nil {
		return nil, err
	}
	return k, k.suitable()
}

// ParseCertificate reads a certificate in DER, the form in which the kernel loads and measures keys.
func ParseCertificate(b []byte) (*Key, error) {
	if len(b) > MaxKey {
		return nil, fmt.Errorf("key over %d bytes", MaxKey)
	}
	if _, err := x509.ParseCertificate(b); err != nil {
		return nil, errors.New("no X.509 certificate")
	}
	return ParseKey(b)
}

func (k *Key) parse() error {
	spki := k.DER
	if cert, err := x509.ParseCertificate(k.DER); err == nil {
		spki = cert.RawSubjectPublicKeyInfo
		if n := len(cert.SubjectKeyId); n >= 4 {
			k.ids = append(k.ids, [4]byte(cert.SubjectKeyId[n-4:]))
		}
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return errors.New("key is neither an X.509 certificate nor a public key of a known kind")
	}
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	sum := sha1.Sum(info.Key.Bytes) //nolint:gosec // as RFC 5280, section 4.2.1.2, and evmctl have it
	if id := [4]byte(sum[len(sum)-4:]); !slices.Contains(k.ids, id) {
		k.ids = append(k.ids, id)
	}
	k.public, k.spki = pub, sha256.Sum256(spki)
	return nil
}

func (k *Key) suitable() error {
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("RSA key of %d bits, not %d to %d", n, minRSA, maxRSA)
		}
		return nil
	case *ecdsa.PublicKey:
		if bits := pub.Curve.Params().BitSize; bits >= 256 {
			return nil
		}
		return errors.New("ECDSA key on a curve below 256 bits")
	}
	return fmt.Errorf("a key of kind %T: RSA or ECDSA", k.public)
}

// String names the key by its SHA-256, as others print it.
func (k *Key) String() string { return "sha256:" + hex.EncodeToString(k.spki[:]) }

// Keys are keys by their IDs. The zero value has none.
type Keys struct{ byID map[[4]byte][]*Key }

// NewKeys makes Keys of lists; a key that is there twice counts once.
func NewKeys(lists ...[]*Key) *Keys {
	out := &Keys{byID: map[[4]byte][]*Key{}}
	for _, list := range lists {
		for _, k := range list {
			out.Add(k)
		}
	}
	return out
}

// Add adds a key.
func (s *Keys) Add(k *Key) {
	for _, id := range k.ids {
		if !slices.ContainsFunc(s.byID[id], func(o *Key) bool { return o.spki == k.spki }) && len(s.byID[id]) < maxSameID {
			s.byID[id] = append(s.byID[id], k)
		}
	}
}

// maxSameID bounds the work of one verification.
const maxSameID = 4
