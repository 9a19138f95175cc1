package quote

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
)

// oracle reads b with go-tpm, and demands that it be that structure's one encoding.
func oracle[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](b []byte) (v *T) {
	defer func() {
		if recover() != nil {
			v = nil
		}
	}()
	v, err := tpm2.Unmarshal[T, P](b)
	if err != nil || !bytes.Equal(tpm2.Marshal(P(v)), b) {
		return nil
	}
	return v
}

// The readers agree with go-tpm on every input: about what is well formed, and about every field.
func FuzzReadersAgainstGoTPM(f *testing.F) {
	ecc := tpm2.Marshal(tpm2.ECCEKTemplate)
	rsa := tpm2.Marshal(tpm2.RSASRKTemplate)
	sig := tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: []byte{1}}, SignatureS: tpm2.TPM2BECCParameter{Buffer: []byte{2, 3}}})})
	st := tpm2.Marshal(tpm2.TPMSAttest{Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, QualifiedSigner: tpm2.TPM2BName{Buffer: []byte{0, 11, 1}}, ExtraData: tpm2.TPM2BData{Buffer: []byte{5}},
		ClockInfo: tpm2.TPMSClockInfo{Clock: 1 << 40, ResetCount: 2, RestartCount: 3, Safe: true}, FirmwareVersion: 4,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{PCRDigest: tpm2.TPM2BDigest{Buffer: []byte{9}},
			PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{1, 2, 3}}, {Hash: tpm2.TPMAlgSHA1, PCRSelect: []byte{0, 4, 0}}}}})})
	for _, b := range [][]byte{ecc, rsa, sig, st, st[:20], append(bytes.Clone(sig), 0)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > attest.MaxPublic {
			return
		}
		compareStatements(t, b)
		compareSignatures(t, b)
		comparePublics(t, b)
	})
}

func compareStatements(t *testing.T, b []byte) {
	t.Helper()
	ours, err := parseStatement(b)
	theirs := oracle[tpm2.TPMSAttest](b)
	if err != nil {
		if theirs != nil && theirs.Type == tpm2.TPMSTAttestQuote {
			if info, err := theirs.Attested.Quote(); err == nil && len(info.PCRSelect.PCRSelections) <= attest.MaxBanks {
				t.Fatalf("refused: %x", b)
			}
		}
		return
	}
	if theirs == nil {
		t.Fatalf("accepted: %x", b)
	}
	info, err := theirs.Attested.Quote()
	c := theirs.ClockInfo
	if err != nil || !bytes.Equal(ours.signer, theirs.QualifiedSigner.Buffer) || !bytes.Equal(ours.extraData, theirs.ExtraData.Buffer) || ours.clock != c.Clock ||
		ours.resetCount != c.ResetCount || ours.restartCount != c.RestartCount || ours.safe != c.Safe || ours.firmware != theirs.FirmwareVersion ||
		!bytes.Equal(ours.pcrDigest, info.PCRDigest.Buffer) || len(ours.selections) != len(info.PCRSelect.PCRSelections) {
		t.Fatalf("read otherwise: %+v, %+v", ours, theirs)
	}
	for i, s := range info.PCRSelect.PCRSelections {
		if ours.selections[i].alg != attest.Alg(s.Hash) || !bytes.Equal(ours.selections[i].bitmap, s.PCRSelect) {
			t.Fatalf("bank %d read otherwise: %+v, %+v", i, ours, theirs)
		}
	}
}

func compareSignatures(t *testing.T, b []byte) {
	t.Helper()
	ours, err := parseSignature(b)
	theirs := oracle[tpm2.TPMTSignature](b)
	if err != nil {
		if theirs != nil && (theirs.SigAlg == tpm2.TPMAlgECDSA || theirs.SigAlg == tpm2.TPMAlgRSASSA || theirs.SigAlg == tpm2.TPMAlgRSAPSS) {
			t.Fatalf("refused: %x", b)
		}
		return
	}
	if theirs == nil || uint16(theirs.SigAlg) != ours.scheme {
		t.Fatalf("accepted: %x", b)
	}
	switch theirs.SigAlg {
	case tpm2.TPMAlgECDSA:
		if s, err := theirs.Signature.ECDSA(); err != nil || attest.Alg(s.Hash) != ours.hash || !bytes.Equal(s.SignatureR.Buffer, ours.r) || !bytes.Equal(s.SignatureS.Buffer, ours.s) {
			t.Fatalf("read otherwise: %x", b)
		}
	case tpm2.TPMAlgRSASSA:
		if s, err := theirs.Signature.RSASSA(); err != nil || attest.Alg(s.Hash) != ours.hash || !bytes.Equal(s.Sig.Buffer, ours.rsa) {
			t.Fatalf("read otherwise: %x", b)
		}
	}
}

func comparePublics(t *testing.T, b []byte) {
	t.Helper()
	ours, err := parsePublic(b)
	theirs := oracle[tpm2.TPMTPublic](b)
	if err != nil {
		return // go-tpm also takes parameters that no key has, such as an HMAC as an ECC key's scheme
	}
	if theirs == nil {
		t.Fatalf("accepted: %x", b)
	}
	if ours.kind != uint16(theirs.Type) || ours.nameAlg != attest.Alg(theirs.NameAlg) {
		t.Fatalf("read otherwise: %x", b)
	}
	if theirs.Type == tpm2.TPMAlgRSA {
		d, err1 := theirs.Parameters.RSADetail()
		n, err2 := theirs.Unique.RSA()
		if err1 != nil || err2 != nil || ours.keyBits != uint16(d.KeyBits) || ours.exponent != d.Exponent || ours.scheme != uint16(d.Scheme.Scheme) || !bytes.Equal(ours.modulus, n.Buffer) {
			t.Fatalf("read otherwise: %x", b)
		}
		return
	}
	d, err1 := theirs.Parameters.ECCDetail()
	p, err2 := theirs.Unique.ECC()
	if err1 != nil || err2 != nil || ours.curve != uint16(d.CurveID) || ours.scheme != uint16(d.Scheme.Scheme) || !bytes.Equal(ours.x, p.X.Buffer) || !bytes.Equal(ours.y, p.Y.Buffer) {
		t.Fatalf("read otherwise: %x", b)
	}
}

// Attributes by name are the bits that a TPM means.
func TestAttribute_bits_are_those_of_the_specification(t *testing.T) {
	for bit, a := range map[uint32]tpm2.TPMAObject{
		bitFixedTPM: {FixedTPM: true}, bitFixedParent: {FixedParent: true}, bitSensitiveDataOrigin: {SensitiveDataOrigin: true},
		bitRestricted: {Restricted: true}, bitDecrypt: {Decrypt: true}, bitSign: {SignEncrypt: true}, bitX509Sign: {X509Sign: true},
	} {
		template := tpm2.ECCEKTemplate
		template.ObjectAttributes = a
		p, err := parsePublic(tpm2.Marshal(template))
		if err != nil || p.attributes != bit {
			t.Errorf("bit %#x is %#x in %+v (%v)", bit, p.attributes, a, err)
		}
	}
}
