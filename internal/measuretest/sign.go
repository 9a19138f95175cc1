package measuretest

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // key IDs are the end of SHA-1 values
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"time"
)

// Signer signs files as evmctl does.
type Signer struct {
	Key  crypto.Signer
	Cert []byte // X.509, DER
}

// NewSigner makes a certificate for a key, RSA or ECDSA.
func NewSigner(key crypto.Signer) *Signer {
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "file signing"}, NotAfter: time.Unix(1e9, 0), SubjectKeyId: KeyID(key.Public())}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &Signer{Key: key, Cert: cert}
}

// KeyID is the SHA-1 of the public key's bits: a subject key identifier.
func KeyID(public crypto.PublicKey) []byte {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err)
	}
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		panic(err)
	}
	sum := sha1.Sum(info.Key.Bytes) //nolint:gosec // see above
	return sum[:]
}

// Sign gives the security.ima attribute of a file with a content: type 3, version 2, SHA-256.
func (s *Signer) Sign(content string) []byte {
	d := sha256.Sum256([]byte(content))
	return s.Signature(3, 2, d[:])
}

// SignVerity gives the attribute of a file with an fs-verity digest: type 6, version 3, SHA-256.
func (s *Signer) SignVerity(digest []byte) []byte {
	id := sha256.Sum256(append([]byte{6, 4}, digest...))
	return s.Signature(6, 3, id[:])
}

// Signature signs a SHA-256 digest under any header.
func (s *Signer) Signature(typ, version byte, digest []byte) []byte {
	sig, err := s.Key.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		panic(err)
	}
	out := []byte{typ, version, 4}
	id := KeyID(s.Key.Public())
	out = append(out, id[len(id)-4:]...)
	out = binary.BigEndian.AppendUint16(out, uint16(len(sig)))
	return append(out, sig...)
}

// Signed writes the ima-sig entry of a file with a content and a signature, which may be empty.
func (l *IMA) Signed(path, content string, sig []byte) {
	d := sha256.Sum256([]byte(content))
	l.Entry("ima-sig", append([]byte("sha256:\x00"), d[:]...), append([]byte(path), 0), sig)
}

// Buffer writes the ima-buf entry of a buffer, such as a key that is loaded into a keyring.
func (l *IMA) Buffer(name string, data []byte) {
	d := sha256.Sum256(data)
	l.Entry("ima-buf", append([]byte("sha256:\x00"), d[:]...), append([]byte(name), 0), data)
}
