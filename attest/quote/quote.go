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
	"math/big"
	"slices"

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
	if len(q.Attest)+len(q.Signature)+2 > attest.MaxQuote {
		return nil, fail(KindMalformed, "quote of %d bytes", len(q.Attest)+len(q.Signature)+2)
	}
	st, err := parseStatement(q.Attest)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(st.signer, ak.qualified) != 1 {
		return nil, fail(KindSigner, "signed by key %x, which is not the attestation key %v in the endorsement hierarchy", st.signer, ak.name)
	}
	if err := ak.checkSignature(q.Attest, q.Signature); err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(st.extraData, extraData) != 1 {
		return nil, fail(KindNonce, "made for %x, not for this challenge's %x", st.extraData, extraData)
	}
	banks, err := quotedBanks(st, ak, values)
	if err != nil {
		return nil, err
	}
	return &Verified{
		Banks: banks, Clock: st.clock, ResetCount: st.resetCount, RestartCount: st.restartCount, Safe: st.safe,
		FirmwareVersion: st.firmware, QualifiedSigner: bytes.Clone(st.signer),
	}, nil
}

func (ak *AK) checkSignature(signed, tpmtSignature []byte) error {
	sig, err := parseSignature(tpmtSignature)
	if err != nil {
		return err
	}
	if sig.scheme != ak.scheme || sig.hash != ak.hashAlg {
		return fail(KindAlgorithm, "signed with scheme %#04x and %v, the attestation key has %s", sig.scheme, sig.hash, ak.Scheme())
	}
	h := ak.hash.New()
	h.Write(signed)
	if !ak.holds(sig, h.Sum(nil)) {
		return fail(KindSignature, "the signature does not hold")
	}
	return nil
}

// holds needs a signature of ak's own scheme and hash.
func (ak *AK) holds(sig *signature, digest []byte) bool {
	switch ak.scheme {
	case algECDSA:
		return ak.holdsECDSA(sig, digest)
	case algRSASSA:
		return rsa.VerifyPKCS1v15(ak.rsa, ak.hash, digest, sig.rsa) == nil
	case algRSAPSS:
		return rsa.VerifyPSS(ak.rsa, ak.hash, digest, sig.rsa, nil) == nil
	}
	return false
}

func (ak *AK) holdsECDSA(sig *signature, digest []byte) bool {
	order := ak.ecc.Params().N
	if size := (order.BitLen() + 7) / 8; len(sig.r) > size || len(sig.s) > size {
		return false
	}
	r, s := new(big.Int).SetBytes(sig.r), new(big.Int).SetBytes(sig.s)
	inRange := r.Sign() > 0 && s.Sign() > 0 && r.Cmp(order) < 0 && s.Cmp(order) < 0
	return inRange && ecdsa.Verify(ak.ecc, digest, r, s)
}

// quotedBanks gives values in the order that was signed, if they are what was signed.
func quotedBanks(st *statement, ak *AK, values []attest.PCRBank) ([]attest.PCRBank, error) {
	if err := attest.CheckBanks(values); err != nil {
		return nil, fail(KindPCRs, "the PCR values are malformed: %v", err)
	}
	sel, err := selection(st.selections)
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
	if subtle.ConstantTimeCompare(h.Sum(nil), st.pcrDigest) != 1 {
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
func selection(list []bankBits) ([]attest.PCRSelection, error) {
	var out []attest.PCRSelection
	for _, s := range list {
		sel := attest.PCRSelection{Alg: s.alg}
		if sel.Alg.Size() == 0 || slices.ContainsFunc(out, func(o attest.PCRSelection) bool { return o.Alg == sel.Alg }) {
			return nil, fail(KindPCRs, "the quote covers bank %v, which is unknown or stands there twice", sel.Alg)
		}
		for i := range 8 * len(s.bitmap) {
			if s.bitmap[i/8]&(1<<(i%8)) == 0 {
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
