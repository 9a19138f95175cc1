// Package quote checks a TPM2_Quote (TPM 2.0 Part 3, section 18.4) in one call. Verify takes the quote,
// the key, the nonce and the PCR values, and gives a Verified only after all of them were found to
// belong together; there is no half-verified state to forget.
//
//	ak, err := quote.ParseAK(public)                       // refuses keys that could sign forgeries
//	v, err := quote.Verify(q, ak, nonce[:], values)        // everything else
//	pcr10 := v.Bank(attest.SHA256).Get(10)
//
// What it does not say: that ak belongs to the TPM one means (enrolment does), that the PCR
// values are good (attest/measurement explains them, a policy judges them), and that a PCR that a
// policy wants is among them: Get gives nil for one that was not quoted.
//
// PCR 16 and 23 can be reset by any software and 17-22 by software at higher localities; a value of
// them proves nothing about the past (PC Client Platform TPM Profile, section 3.7). attest.PCRResettable
// names them.
package quote

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/binary"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
)

// Verified is what a TPM stated about itself, proven by its AK's signature.
type Verified struct {
	Banks           []attest.PCRBank // the values under the signature, in the order it covers them
	Clock           uint64           // milliseconds that the TPM was powered, over its life
	ResetCount      uint32           // TPM resets (boots) since it was cleared
	RestartCount    uint32           // resumes since the last reset
	Safe            bool             // Clock was never ahead of this value before
	FirmwareVersion uint64           // of the vendor's own meaning
	QualifiedSigner attest.Name
}

// Bank gives the proven bank of alg, empty where the quote did not cover it.
func (v *Verified) Bank(alg attest.Alg) attest.PCRBank {
	b, _ := attest.Bank(v.Banks, alg)
	return b
}

// Verify checks that ak signed q, that q is a quote over extraData (32 bytes), and that values
// are exactly the PCRs under the signature. In detail:
//
//   - both structures are whole, of one encoding and within attest.MaxQuote;
//   - magic is TPM_GENERATED_VALUE and type TPM_ST_ATTEST_QUOTE;
//   - qualifiedSigner is ak as a primary key of the endorsement hierarchy;
//   - signature scheme and hash are those of ak, and the signature holds (ECDSA: 0 < r, s < order);
//   - extraData is equal;
//   - banks and PCRs that were signed are those of values, no more, no fewer, no bank of them is
//     empty, and one of them is SHA-256 or stronger;
//   - pcrDigest is the hash, by the scheme's algorithm, of values in the order that was signed.
//
// Every error is an *Error.
func Verify(q attest.Quote, ak *AK, extraData []byte, values []attest.PCRBank) (*Verified, error) {
	if ak == nil || len(extraData) < 32 {
		return nil, fail(KindNonce, "a quote is verified with a key and at least 32 bytes of qualifying data")
	}
	st, err := decodeAttest(q)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(st.QualifiedSigner.Buffer, ak.qualified) != 1 {
		return nil, fail(KindSigner, "signed by key %x, which is not the attestation key %v in the endorsement hierarchy", st.QualifiedSigner.Buffer, ak.name)
	}
	if err := ak.checkSignature(q.Attest, q.Signature); err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(st.ExtraData.Buffer, extraData) != 1 {
		return nil, fail(KindNonce, "made for %x, not for this challenge's %x", st.ExtraData.Buffer, extraData)
	}
	banks, err := quotedBanks(st, ak, values)
	if err != nil {
		return nil, err
	}
	return &Verified{
		Banks: banks, Clock: st.ClockInfo.Clock, ResetCount: st.ClockInfo.ResetCount,
		RestartCount: st.ClockInfo.RestartCount, Safe: bool(st.ClockInfo.Safe),
		FirmwareVersion: st.FirmwareVersion, QualifiedSigner: bytes.Clone(st.QualifiedSigner.Buffer),
	}, nil
}

// decodeAttest reads a TPMS_ATTEST that says it is a quote. Magic and type stand at
// fixed offsets and are looked at before anything else is parsed.
func decodeAttest(q attest.Quote) (*tpm2.TPMSAttest, error) {
	a := q.Attest
	if len(a) < 6 || len(a)+len(q.Signature)+2 > attest.MaxQuote {
		return nil, fail(KindMalformed, "not a TPMS_ATTEST: %d bytes", len(a))
	}
	if m := binary.BigEndian.Uint32(a); m != uint32(tpm2.TPMGeneratedValue) {
		return nil, fail(KindMagic, "magic is %#08x: this was not made inside a TPM", m)
	}
	if t := binary.BigEndian.Uint16(a[4:]); t != uint16(tpm2.TPMSTAttestQuote) {
		return nil, fail(KindType, "attestation structure of type %#04x, not a quote", t)
	}
	st, err := decode[tpm2.TPMSAttest](a, attest.MaxQuote)
	if err != nil {
		return nil, fail(KindMalformed, "the TPMS_ATTEST is malformed: %v", err)
	}
	return st, nil
}

func (ak *AK) checkSignature(signed, signature []byte) error {
	sig, err := decode[tpm2.TPMTSignature](signature, attest.MaxQuote)
	if err != nil {
		return fail(KindMalformed, "the TPMT_SIGNATURE is malformed: %v", err)
	}
	if sig.SigAlg != ak.scheme {
		return fail(KindAlgorithm, "signed with scheme %#04x, the attestation key has %s", uint16(sig.SigAlg), ak.Scheme())
	}
	h := ak.hash.New()
	h.Write(signed)
	if ak.ecc != nil {
		return ak.checkECDSA(sig, h.Sum(nil))
	}
	return ak.checkRSA(sig, h.Sum(nil))
}

func (ak *AK) checkECDSA(sig *tpm2.TPMTSignature, digest []byte) error {
	s, err := sig.Signature.ECDSA()
	if err != nil || attest.Alg(s.Hash) != ak.hashAlg {
		return fail(KindAlgorithm, "the signature's hash is not that of the attestation key (%s)", ak.Scheme())
	}
	size := (ak.ecc.Params().BitSize + 7) / 8
	if len(s.SignatureR.Buffer) > size || len(s.SignatureS.Buffer) > size {
		return fail(KindSignature, "the signature's numbers are longer than the curve's order")
	}
	r, t := new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)
	if order := ak.ecc.Params().N; r.Sign() == 0 || t.Sign() == 0 || r.Cmp(order) >= 0 || t.Cmp(order) >= 0 {
		return fail(KindSignature, "the signature's numbers are not between 0 and the curve's order")
	}
	if !ecdsa.Verify(ak.ecc, digest, r, t) {
		return fail(KindSignature, "the signature does not hold")
	}
	return nil
}

func (ak *AK) checkRSA(sig *tpm2.TPMTSignature, digest []byte) error {
	s, err := sig.Signature.RSASSA()
	if ak.scheme == tpm2.TPMAlgRSAPSS {
		s, err = sig.Signature.RSAPSS()
	}
	if err != nil || attest.Alg(s.Hash) != ak.hashAlg {
		return fail(KindAlgorithm, "the signature's hash is not that of the attestation key (%s)", ak.Scheme())
	}
	if ak.scheme == tpm2.TPMAlgRSAPSS {
		err = rsa.VerifyPSS(ak.rsa, ak.hash, digest, s.Sig.Buffer, nil)
	} else {
		err = rsa.VerifyPKCS1v15(ak.rsa, ak.hash, digest, s.Sig.Buffer)
	}
	if err != nil {
		return fail(KindSignature, "the signature does not hold")
	}
	return nil
}

// quotedBanks gives values in the order that was signed, if they are what was signed.
func quotedBanks(st *tpm2.TPMSAttest, ak *AK, values []attest.PCRBank) ([]attest.PCRBank, error) {
	info, err := st.Attested.Quote()
	if err != nil {
		return nil, fail(KindType, "the attestation structure holds no quote")
	}
	if err := attest.CheckBanks(values); err != nil {
		return nil, fail(KindPCRs, "the PCR values are malformed: %v", err)
	}
	sel, err := selection(info.PCRSelect)
	if err != nil {
		return nil, err
	}
	if len(sel) != len(values) {
		return nil, fail(KindPCRs, "the quote covers %d PCR banks, values of %d were sent", len(sel), len(values))
	}
	banks, h, anyStrong := make([]attest.PCRBank, 0, len(sel)), ak.hash.New(), false
	for _, s := range sel {
		b, err := covered(s, values)
		if err != nil {
			return nil, err
		}
		for _, p := range b.PCRs {
			h.Write(p.Value)
		}
		banks, anyStrong = append(banks, b), anyStrong || b.Alg.Strong()
	}
	if !anyStrong {
		return nil, fail(KindPCRs, "the quote covers no bank of SHA-256 or stronger")
	}
	if subtle.ConstantTimeCompare(h.Sum(nil), info.PCRDigest.Buffer) != 1 {
		return nil, fail(KindPCRs, "the PCR values that were sent are not those that were quoted")
	}
	return banks, nil
}

// covered finds the values of one bank of the selection and copies them.
func covered(s attest.PCRSelection, values []attest.PCRBank) (attest.PCRBank, error) {
	b, ok := attest.Bank(values, s.Alg)
	if !ok {
		return attest.PCRBank{}, fail(KindPCRs, "the quote covers bank %v, of which no values were sent", s.Alg)
	}
	var have []uint8
	out := attest.PCRBank{Alg: s.Alg}
	for _, p := range b.PCRs {
		have = append(have, p.Index)
		out.PCRs = append(out.PCRs, attest.PCR{Index: p.Index, Value: bytes.Clone(p.Value)})
	}
	if !slices.Equal(have, s.PCRs) {
		return attest.PCRBank{}, fail(KindPCRs, "the quote covers PCRs %d of bank %v, values of %d were sent", s.PCRs, s.Alg, have)
	}
	return out, nil
}

// selection reads what was signed. A TPM quotes a bank that it does not have as an empty bitmap
// and signs that: it is refused here, as are a bank that stands there twice and PCRs above 23.
func selection(list tpm2.TPMLPCRSelection) ([]attest.PCRSelection, error) {
	var out []attest.PCRSelection
	for _, s := range list.PCRSelections {
		sel := attest.PCRSelection{Alg: attest.Alg(s.Hash)}
		if sel.Alg.Size() == 0 || slices.ContainsFunc(out, func(o attest.PCRSelection) bool { return o.Alg == sel.Alg }) {
			return nil, fail(KindPCRs, "the quote covers bank %v, which is unknown or stands there twice", sel.Alg)
		}
		for i := range 8 * len(s.PCRSelect) {
			if s.PCRSelect[i/8]&(1<<(i%8)) == 0 {
				continue
			}
			if i >= attest.PCRCount {
				return nil, fail(KindPCRs, "the quote covers PCR %d", i)
			}
			sel.PCRs = append(sel.PCRs, uint8(i))
		}
		if len(sel.PCRs) == 0 {
			return nil, fail(KindPCRs, "the quote covers no PCR of bank %v: the TPM has no such bank", sel.Alg)
		}
		out = append(out, sel)
	}
	if len(out) == 0 {
		return nil, fail(KindPCRs, "the quote covers no PCR")
	}
	return out, nil
}
