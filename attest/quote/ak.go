package quote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
)

// AK is an attestation key that is fit for quotes: it can sign nothing but what its own TPM
// made. Whether that TPM is the right one is not known yet: enrolment by credential activation
// (TPM 2.0 Part 1, section 24) shows it, and the caller keeps the Name it showed.
type AK struct {
	name      attest.Name
	qualified attest.Name
	scheme    tpm2.TPMAlgID // ECDSA, RSASSA or RSAPSS
	hashAlg   attest.Alg    // of the scheme
	hash      crypto.Hash
	ecc       *ecdsa.PublicKey
	rsa       *rsa.PublicKey
}

// ParseAK reads a TPMT_PUBLIC and refuses every key but these: restricted, fixedTPM, fixedParent,
// sensitiveDataOrigin, sign, not decrypt; ECDSA on P-256 or P-384, or RSASSA or RSAPSS with 2048 bits
// and more; SHA-256 or stronger as name algorithm and in the scheme. An unrestricted key could
// sign a forged TPMS_ATTEST, an imported one may have copies. Errors are KindAK.
func ParseAK(tpmtPublic []byte) (*AK, error) {
	pub, err := decode[tpm2.TPMTPublic](tpmtPublic, attest.MaxPublic)
	if err != nil {
		return nil, fail(KindAK, "the attestation key's public area is malformed: %v", err)
	}
	if err := checkAttributes(pub.ObjectAttributes); err != nil {
		return nil, err
	}
	name, err := NameOf(tpmtPublic)
	if err != nil {
		return nil, fail(KindAK, "the attestation key's name algorithm is %#04x; SHA-256 or stronger is required", uint16(pub.NameAlg))
	}
	ak := &AK{name: name, qualified: qualifiedName(name)}
	switch pub.Type {
	case tpm2.TPMAlgECC:
		return ak.withECC(pub)
	case tpm2.TPMAlgRSA:
		return ak.withRSA(pub)
	}
	return nil, fail(KindAK, "the attestation key is of type %#04x, neither ECC nor RSA", uint16(pub.Type))
}

// Name is the AK's object name (TPM 2.0 Part 1, section 16).
func (ak *AK) Name() attest.Name { return bytes.Clone(ak.name) }

// QualifiedName is the AK's qualified name as a primary key of the endorsement hierarchy: the
// only qualifiedSigner that Verify accepts. There resetCount, restartCount and firmwareVersion are
// in clear; a key under another hierarchy would have them hidden (TPM 2.0 Part 1, section 36).
func (ak *AK) QualifiedName() attest.Name { return bytes.Clone(ak.qualified) }

// Scheme names the signature scheme, as in "ecdsa-sha256".
func (ak *AK) Scheme() string {
	n := map[tpm2.TPMAlgID]string{tpm2.TPMAlgECDSA: "ecdsa", tpm2.TPMAlgRSASSA: "rsassa", tpm2.TPMAlgRSAPSS: "rsapss"}
	return n[ak.scheme] + "-" + ak.hashAlg.String()
}

// NameOf computes the object name of a key from its TPMT_PUBLIC: nameAlg followed by the hash of the
// public area. It takes any key of a TPM (an EK too) and judges only its name algorithm, which must
// be SHA-256 or stronger. Errors are KindKey.
func NameOf(tpmtPublic []byte) (attest.Name, error) {
	pub, err := decode[tpm2.TPMTPublic](tpmtPublic, attest.MaxPublic)
	if err != nil {
		return nil, fail(KindKey, "the key's public area is malformed: %v", err)
	}
	alg := attest.Alg(pub.NameAlg)
	if !alg.Strong() {
		return nil, fail(KindKey, "the key's name algorithm is %v; SHA-256 or stronger is required", alg)
	}
	return nameWith(alg, tpmtPublic), nil
}

// qualifiedName is H_nameAlg(TPM_RH_ENDORSEMENT || name) behind nameAlg: the qualified name of a
// primary key, whose parent's name is the hierarchy's handle (TPM 2.0 Part 1, section 16.2).
func qualifiedName(name attest.Name) attest.Name {
	b := binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHEndorsement))
	return nameWith(attest.Alg(binary.BigEndian.Uint16(name)), append(b, name...))
}

func nameWith(alg attest.Alg, content []byte) attest.Name {
	h, ok := alg.Hash()
	if !ok {
		return nil
	}
	sum := h.New()
	sum.Write(content)
	return sum.Sum(binary.BigEndian.AppendUint16(nil, uint16(alg)))
}

func checkAttributes(a tpm2.TPMAObject) error {
	for _, c := range []struct {
		ok   bool
		text string
	}{
		{a.Restricted, "is not restricted: it could sign a quote that no TPM made"},
		{a.SignEncrypt, "is not a signing key"},
		{!a.Decrypt, "also decrypts"},
		{!a.X509Sign, "also signs certificates"},
		{a.FixedTPM, "is not fixed to its TPM (fixedTPM)"},
		{a.FixedParent, "is not fixed to its parent (fixedParent)"},
		{a.SensitiveDataOrigin, "was not generated inside the TPM (sensitiveDataOrigin)"},
	} {
		if !c.ok {
			return fail(KindAK, "the attestation key %s", c.text)
		}
	}
	return nil
}

func (ak *AK) setScheme(scheme tpm2.TPMAlgID, hash tpm2.TPMAlgID) error {
	ak.scheme, ak.hashAlg = scheme, attest.Alg(hash)
	if !ak.hashAlg.Strong() {
		return fail(KindAK, "the attestation key signs with %v; SHA-256 or stronger is required", ak.hashAlg)
	}
	ak.hash, _ = ak.hashAlg.Hash()
	return nil
}

func (ak *AK) withECC(pub *tpm2.TPMTPublic) (*AK, error) {
	parms, err1 := pub.Parameters.ECCDetail()
	point, err2 := pub.Unique.ECC()
	if err1 != nil || err2 != nil {
		return nil, fail(KindAK, "the attestation key's ECC parameters cannot be read")
	}
	if parms.CurveID != tpm2.TPMECCNistP256 && parms.CurveID != tpm2.TPMECCNistP384 {
		return nil, fail(KindAK, "the attestation key is on curve %#04x, neither P-256 nor P-384", uint16(parms.CurveID))
	}
	scheme, err := parms.Scheme.Details.ECDSA()
	if parms.Scheme.Scheme != tpm2.TPMAlgECDSA || err != nil {
		return nil, fail(KindAK, "the attestation key's scheme is %#04x, not ECDSA", uint16(parms.Scheme.Scheme))
	}
	if err := ak.setScheme(tpm2.TPMAlgECDSA, scheme.HashAlg); err != nil {
		return nil, err
	}
	if ak.ecc, err = tpm2.ECDSAPub(parms, point); err != nil {
		return nil, fail(KindAK, "the attestation key's curve is not known")
	}
	if _, err := ak.ecc.ECDH(); err != nil { // refuses a point that is not on the curve
		return nil, fail(KindAK, "the attestation key's point is not on its curve")
	}
	return ak, nil
}

func (ak *AK) withRSA(pub *tpm2.TPMTPublic) (*AK, error) {
	parms, err1 := pub.Parameters.RSADetail()
	modulus, err2 := pub.Unique.RSA()
	if err1 != nil || err2 != nil {
		return nil, fail(KindAK, "the attestation key's RSA parameters cannot be read")
	}
	hash, err := rsaSchemeHash(parms)
	if err != nil {
		return nil, err
	}
	if err := ak.setScheme(parms.Scheme.Scheme, hash); err != nil {
		return nil, err
	}
	if ak.rsa, err = tpm2.RSAPub(parms, modulus); err != nil {
		return nil, fail(KindAK, "the attestation key's modulus cannot be read")
	}
	bits := ak.rsa.N.BitLen()
	if bits < 2048 || bits > 4096 || bits != int(parms.KeyBits) || ak.rsa.N.Bit(0) == 0 || ak.rsa.E != 65537 {
		return nil, fail(KindAK, "the attestation key is RSA with %d bits and exponent %d; 2048 to 4096 bits and 65537 are accepted", bits, ak.rsa.E)
	}
	return ak, nil
}

func rsaSchemeHash(parms *tpm2.TPMSRSAParms) (tpm2.TPMAlgID, error) {
	switch parms.Scheme.Scheme {
	case tpm2.TPMAlgRSASSA:
		if s, err := parms.Scheme.Details.RSASSA(); err == nil {
			return s.HashAlg, nil
		}
	case tpm2.TPMAlgRSAPSS:
		if s, err := parms.Scheme.Details.RSAPSS(); err == nil {
			return s.HashAlg, nil
		}
	}
	return 0, fail(KindAK, "the attestation key's scheme is %#04x, neither RSASSA nor RSAPSS", uint16(parms.Scheme.Scheme))
}
