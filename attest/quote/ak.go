package quote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/binary"
	"math/big"

	"virt-attest/attest"
)

// AK is an attestation key that is fit for quotes: it can sign nothing but what its own TPM
// made. Whether that TPM is the right one is not known yet: enrolment by credential activation
// (TPM 2.0 Part 1, section 24) shows it, and the caller keeps the Name it showed.
type AK struct {
	name      attest.Name
	qualified attest.Name
	scheme    uint16     // ECDSA, RSASSA or RSAPSS
	hashAlg   attest.Alg // of the scheme
	hash      crypto.Hash
	ecc       *ecdsa.PublicKey
	rsa       *rsa.PublicKey
}

// ParseAK reads a TPMT_PUBLIC and refuses every key but these: restricted, fixedTPM, fixedParent,
// sensitiveDataOrigin, sign, not decrypt; ECDSA on P-256 or P-384, or RSASSA or RSAPSS with 2048 to 4096
// bits; SHA-256 or stronger as name algorithm and in the scheme. An unrestricted key could
// sign a forged TPMS_ATTEST, an imported one may have copies. Errors are KindAK.
func ParseAK(tpmtPublic []byte) (*AK, error) {
	p, err := parsePublic(tpmtPublic)
	if err != nil {
		return nil, fail(KindAK, "the attestation key's public area is malformed: %v", err)
	}
	if err := checkAttributes(p.attributes); err != nil {
		return nil, err
	}
	if !p.nameAlg.Strong() || !p.hash.Strong() {
		return nil, fail(KindAK, "the attestation key is named by %v and signs with %v; SHA-256 or stronger is required", p.nameAlg, p.hash)
	}
	ak := &AK{name: nameWith(p.nameAlg, tpmtPublic), scheme: p.scheme, hashAlg: p.hash}
	ak.qualified = qualifiedName(ak.name)
	ak.hash, _ = p.hash.Hash()
	if p.kind == algECC {
		ak.ecc, err = eccKey(p)
	} else {
		ak.rsa, err = rsaKey(p)
	}
	if err != nil {
		return nil, err
	}
	return ak, nil
}

// Name is the AK's object name (TPM 2.0 Part 1, section 16).
func (ak *AK) Name() attest.Name { return bytes.Clone(ak.name) }

// QualifiedName is the AK's qualified name as a primary key of the endorsement hierarchy: the
// only qualifiedSigner that Verify accepts. There resetCount, restartCount and firmwareVersion are
// in clear; a key under another hierarchy would have them hidden (TPM 2.0 Part 1, section 36).
func (ak *AK) QualifiedName() attest.Name { return bytes.Clone(ak.qualified) }

// Scheme names the signature scheme, as in "ecdsa-sha256".
func (ak *AK) Scheme() string {
	n := map[uint16]string{algECDSA: "ecdsa", algRSASSA: "rsassa", algRSAPSS: "rsapss"}
	return n[ak.scheme] + "-" + ak.hashAlg.String()
}

// NameOf computes the object name of an RSA or ECC key from its TPMT_PUBLIC: nameAlg followed by the hash of
// the public area. It takes any such key of a TPM (an EK too) and judges only its name algorithm,
// which must be SHA-256 or stronger. Errors are KindKey.
func NameOf(tpmtPublic []byte) (attest.Name, error) {
	p, err := parsePublic(tpmtPublic)
	if err != nil {
		return nil, fail(KindKey, "the key's public area is malformed: %v", err)
	}
	if !p.nameAlg.Strong() {
		return nil, fail(KindKey, "the key's name algorithm is %v; SHA-256 or stronger is required", p.nameAlg)
	}
	return nameWith(p.nameAlg, tpmtPublic), nil
}

// QualifiedNameOf is the qualified name of a primary key of the endorsement hierarchy with this name; nil where the name
// is none.
func QualifiedNameOf(name attest.Name) attest.Name {
	if len(name) < 2 || len(name) != 2+attest.Alg(uint16(name[0])<<8|uint16(name[1])).Size() {
		return nil
	}
	return qualifiedName(name)
}

// qualifiedName is H_nameAlg(TPM_RH_ENDORSEMENT || name) behind nameAlg: the qualified name of a
// primary key, whose parent's name is the hierarchy's handle (TPM 2.0 Part 1, section 16.2).
func qualifiedName(name attest.Name) attest.Name {
	parent := binary.BigEndian.AppendUint32(nil, rhEndorsement)
	return nameWith(attest.Alg(binary.BigEndian.Uint16(name)), append(parent, name...))
}

// nameWith needs an algorithm that is Strong.
func nameWith(alg attest.Alg, content []byte) attest.Name {
	f, _ := alg.Hash()
	h := f.New()
	h.Write(content)
	return h.Sum(binary.BigEndian.AppendUint16(nil, uint16(alg)))
}

func checkAttributes(a uint32) error {
	for _, c := range []struct {
		ok   bool
		text string
	}{
		{a&bitRestricted != 0, "is not restricted: it could sign a quote that no TPM made"},
		{a&bitSign != 0, "is not a signing key"},
		{a&bitDecrypt == 0, "also decrypts"},
		{a&bitX509Sign == 0, "also signs certificates"},
		{a&bitFixedTPM != 0, "is not fixed to its TPM (fixedTPM)"},
		{a&bitFixedParent != 0, "is not fixed to its parent (fixedParent)"},
		{a&bitSensitiveDataOrigin != 0, "was not generated inside the TPM (sensitiveDataOrigin)"},
		{a&^uint32(bitsKnown) == 0, "has attributes that are not known here"},
	} {
		if !c.ok {
			return fail(KindAK, "the attestation key %s", c.text)
		}
	}
	return nil
}

func eccKey(p *public) (*ecdsa.PublicKey, error) {
	if p.scheme != algECDSA {
		return nil, fail(KindAK, "the attestation key's scheme is %#04x, not ECDSA", p.scheme)
	}
	curve, size := elliptic.P256(), 32
	switch p.curve {
	case curveP256:
	case curveP384:
		curve, size = elliptic.P384(), 48
	default:
		return nil, fail(KindAK, "the attestation key is on curve %#04x, neither P-256 nor P-384", p.curve)
	}
	if len(p.x) > size || len(p.y) > size {
		return nil, fail(KindAK, "the attestation key's coordinates are too long")
	}
	point := make([]byte, 1+2*size) // 4 || X || Y, both with leading zeros
	point[0] = 4
	copy(point[1+size-len(p.x):], p.x)
	copy(point[1+2*size-len(p.y):], p.y)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fail(KindAK, "the attestation key's point is not on its curve")
	}
	return key, nil
}

func rsaKey(p *public) (*rsa.PublicKey, error) {
	if p.scheme != algRSASSA && p.scheme != algRSAPSS {
		return nil, fail(KindAK, "the attestation key's scheme is %#04x, neither RSASSA nor RSAPSS", p.scheme)
	}
	n := new(big.Int).SetBytes(p.modulus)
	bits := n.BitLen()
	if bits < 2048 || bits > 4096 || bits != int(p.keyBits) || n.Bit(0) == 0 {
		return nil, fail(KindAK, "the attestation key's modulus has %d bits (%d are said); 2048 to 4096 are accepted, and none that is even", bits, p.keyBits)
	}
	if p.exponent != 0 && p.exponent != 65537 { // 0 stands for 65537
		return nil, fail(KindAK, "the attestation key's exponent is %d, not 65537", p.exponent)
	}
	return &rsa.PublicKey{N: n, E: 65537}, nil
}
