package quote_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"pgregory.net/rapid"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/softhost"
	"virt-attest/internal/softtpm"
)

func TestVerify_gives_what_the_TPM_stated(t *testing.T) {
	tpm := newTPM("a")
	tpm.Clock, tpm.ResetCount, tpm.RestartCount, tpm.Safe, tpm.Firmware = 5, 6, 7, false, 8
	ak := parse(t, tpm.AKPublic())
	v, err := quote.Verify(tpm.Quote(nonce, banks()), ak, nonce, banks())
	if err != nil {
		t.Fatal(err)
	}
	if v.Clock != 5 || v.ResetCount != 6 || v.RestartCount != 7 || v.Safe || v.FirmwareVersion != 8 || !bytes.Equal(v.QualifiedSigner, ak.QualifiedName()) {
		t.Errorf("got %+v", v)
	}
	if !bytes.Equal(v.Bank(attest.SHA256).Get(10), banks()[0].Get(10)) || v.Bank(attest.SHA1).Get(9) != nil || v.Bank(attest.SHA384).Get(0) != nil {
		t.Error("the proven values are not the quoted ones")
	}
}

func TestVerify_takes_values_in_any_order_of_banks_and_gives_the_signed_order(t *testing.T) {
	tpm, b := newTPM("a"), banks()
	v, err := quote.Verify(tpm.Quote(nonce, b), parse(t, tpm.AKPublic()), nonce, []attest.PCRBank{b[1], b[0]})
	if err != nil {
		t.Fatal(err)
	}
	if v.Banks[0].Alg != attest.SHA256 || v.Banks[1].Alg != attest.SHA1 {
		t.Errorf("order %v, %v", v.Banks[0].Alg, v.Banks[1].Alg)
	}
}

func TestVerify_hands_out_copies(t *testing.T) {
	tpm, b := newTPM("a"), banks()
	v, err := quote.Verify(tpm.Quote(nonce, b), parse(t, tpm.AKPublic()), nonce, b)
	if err != nil {
		t.Fatal(err)
	}
	b[0].PCRs[10].Value[0] ^= 1
	if bytes.Equal(v.Bank(attest.SHA256).Get(10), b[0].Get(10)) {
		t.Error("a proven value changed after it was proven")
	}
}

// Attacks 15-17, 19, 22-24, 48; CVE-2022-0317, CVE-2024-29038, CVE-2024-29039, CVE-2023-3674: a statement that the
// attestation key itself signed, and that is not the quote it is taken for.
func TestVerify_fails_if_the_signed_statement(t *testing.T) {
	tpm := newTPM("a")
	ak := parse(t, tpm.AKPublic())
	info := func(st *tpm2.TPMSAttest) *tpm2.TPMSQuoteInfo {
		i, err := st.Attested.Quote()
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	emptyDigest := sha256.Sum256(nil)
	for name, c := range map[string]struct {
		change func(*tpm2.TPMSAttest)
		values []attest.PCRBank
		kind   quote.Kind
	}{
		"has another magic (16, CVE-2024-29038)": {func(st *tpm2.TPMSAttest) { st.Magic = 0xff544348 }, banks(), quote.KindMagic},
		"certifies a key (17)": {func(st *tpm2.TPMSAttest) {
			st.Type, st.Attested = tpm2.TPMSTAttestCertify, tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{})
		}, banks(), quote.KindType},
		"tells the time (17)": {func(st *tpm2.TPMSAttest) {
			st.Type, st.Attested = tpm2.TPMSTAttestTime, tpm2.NewTPMUAttest(tpm2.TPMSTAttestTime, &tpm2.TPMSTimeAttestInfo{})
		}, banks(), quote.KindType},
		"certifies NV contents (17)": {func(st *tpm2.TPMSAttest) {
			st.Type, st.Attested = tpm2.TPMSTAttestNV, tpm2.NewTPMUAttest(tpm2.TPMSTAttestNV, &tpm2.TPMSNVCertifyInfo{})
		}, banks(), quote.KindType},
		"certifies a creation (17)": {func(st *tpm2.TPMSAttest) {
			st.Type, st.Attested = tpm2.TPMSTAttestCreation, tpm2.NewTPMUAttest(tpm2.TPMSTAttestCreation, &tpm2.TPMSCreationInfo{})
		}, banks(), quote.KindType},
		"answers another challenge (5)": {func(st *tpm2.TPMSAttest) { st.ExtraData.Buffer = bytes.Repeat([]byte{1}, 32) }, banks(), quote.KindNonce},
		"answers no challenge":          {func(st *tpm2.TPMSAttest) { st.ExtraData.Buffer = nil }, banks(), quote.KindNonce},
		"answers a longer challenge":    {func(st *tpm2.TPMSAttest) { st.ExtraData.Buffer = append(bytes.Clone(nonce), 0) }, banks(), quote.KindNonce},
		"is by the owner hierarchy's key (48)": {func(st *tpm2.TPMSAttest) {
			st.QualifiedSigner.Buffer = softtpm.Qualified(tpm2.TPMRHOwner, tpm.AKName())
		}, banks(), quote.KindSigner},
		"names no signer":                     {func(st *tpm2.TPMSAttest) { st.QualifiedSigner.Buffer = nil }, banks(), quote.KindSigner},
		"names the key without its hierarchy": {func(st *tpm2.TPMSAttest) { st.QualifiedSigner.Buffer = tpm.AKName() }, banks(), quote.KindSigner},
		"covers no bank at all": {func(st *tpm2.TPMSAttest) {
			*info(st) = tpm2.TPMSQuoteInfo{PCRDigest: tpm2.TPM2BDigest{Buffer: emptyDigest[:]}}
		}, nil, quote.KindPCRs},
		"covers no bank, and values are sent": {func(st *tpm2.TPMSAttest) { info(st).PCRSelect.PCRSelections = nil }, banks(), quote.KindPCRs},
		"covers a bank twice": {func(st *tpm2.TPMSAttest) {
			l := &info(st).PCRSelect
			l.PCRSelections[1] = l.PCRSelections[0]
		}, banks(), quote.KindPCRs},
		"covers an unknown bank": {func(st *tpm2.TPMSAttest) { info(st).PCRSelect.PCRSelections[0].Hash = tpm2.TPMAlgSHA3256 }, banks(), quote.KindPCRs},
		"covers PCR 24": {func(st *tpm2.TPMSAttest) {
			s := &info(st).PCRSelect.PCRSelections[0]
			s.PCRSelect = append(s.PCRSelect, 1)
		}, banks(), quote.KindPCRs},
		"covers one PCR less (CVE-2024-29039)": {func(st *tpm2.TPMSAttest) { info(st).PCRSelect.PCRSelections[0].PCRSelect[1] = 3 }, banks(), quote.KindPCRs},
		"covers one PCR more (24)":             {func(st *tpm2.TPMSAttest) { info(st).PCRSelect.PCRSelections[0].PCRSelect[2] = 1 }, banks(), quote.KindPCRs},
		"has another digest of PCRs (23)":      {func(st *tpm2.TPMSAttest) { info(st).PCRDigest.Buffer[0] ^= 1 }, banks(), quote.KindPCRs},
		"has no digest of PCRs":                {func(st *tpm2.TPMSAttest) { info(st).PCRDigest.Buffer = nil }, banks(), quote.KindPCRs},
		"has a shorter digest of PCRs":         {func(st *tpm2.TPMSAttest) { info(st).PCRDigest.Buffer = info(st).PCRDigest.Buffer[:20] }, banks(), quote.KindPCRs},
	} {
		t.Run(name, func(t *testing.T) {
			st := tpm.Attest(nonce, banks())
			c.change(st)
			v, err := quote.Verify(tpm.Sign(tpm2.Marshal(st)), ak, nonce, c.values)
			wantKind(t, err, c.kind)
			if v != nil {
				t.Error("something was handed out as verified")
			}
		})
	}
}

// Attacks 22-24, CVE-2022-0317: values beside a good quote that it does not cover, or covers otherwise.
func TestVerify_fails_if_the_values_sent(t *testing.T) {
	tpm := newTPM("a")
	ak := parse(t, tpm.AKPublic())
	q := tpm.Quote(nonce, banks())
	with := func(f func(b []attest.PCRBank) []attest.PCRBank) []attest.PCRBank { return f(banks()) }
	for name, values := range map[string][]attest.PCRBank{
		"are none (CVE-2022-0317)": nil,
		"lack a bank":              banks()[:1],
		"hold a bank that is not quoted": with(func(b []attest.PCRBank) []attest.PCRBank {
			return append(b, softhost.Banks("x", attest.SHA384)...)
		}),
		"hold an empty bank more": with(func(b []attest.PCRBank) []attest.PCRBank { return append(b, attest.PCRBank{Alg: attest.SHA384}) }),
		"lack a PCR":              with(func(b []attest.PCRBank) []attest.PCRBank { b[0].PCRs = b[0].PCRs[1:]; return b }),
		"hold a PCR that is not quoted (CVE-2022-0317)": with(func(b []attest.PCRBank) []attest.PCRBank {
			b[0].PCRs = append(b[0].PCRs, attest.PCR{Index: 14, Value: make([]byte, 32)})
			return b
		}),
		"hold another value (23)": with(func(b []attest.PCRBank) []attest.PCRBank { b[0].PCRs[3].Value[31] ^= 1; return b }),
		"hold two values exchanged": with(func(b []attest.PCRBank) []attest.PCRBank {
			b[0].PCRs[3].Value, b[0].PCRs[4].Value = b[0].PCRs[4].Value, b[0].PCRs[3].Value
			return b
		}),
		"give a value another index": with(func(b []attest.PCRBank) []attest.PCRBank { b[1].PCRs[0].Index = 11; return b }),
		"move bytes from one value to the next": with(func(b []attest.PCRBank) []attest.PCRBank {
			all := append(bytes.Clone(b[0].PCRs[0].Value), b[0].PCRs[1].Value...)
			b[0].PCRs[0].Value, b[0].PCRs[1].Value = all[:31], all[31:]
			return b
		}),
		"call the SHA-1 bank SHA-256 (22)": with(func(b []attest.PCRBank) []attest.PCRBank {
			b[1].Alg = attest.SHA256
			return b[1:]
		}),
	} {
		t.Run(name, func(t *testing.T) {
			v, err := quote.Verify(q, ak, nonce, values)
			wantKind(t, err, quote.KindPCRs)
			if v != nil {
				t.Error("something was handed out as verified")
			}
		})
	}
}

// A TPM quotes a bank that it has not allocated as an empty selection and signs it.
func TestVerify_fails_if_a_bank_was_quoted_that_the_TPM_does_not_have(t *testing.T) {
	tpm := newTPM("a")
	empty := append(banks(), attest.PCRBank{Alg: attest.SHA384})
	for name, values := range map[string][]attest.PCRBank{"and sent empty": empty, "and not sent": banks()} {
		t.Run(name, func(t *testing.T) {
			_, err := quote.Verify(tpm.Quote(nonce, empty), parse(t, tpm.AKPublic()), nonce, values)
			wantKind(t, err, quote.KindPCRs)
			describe(t, err, "sha384", "no such bank")
		})
	}
}

// Attack 22: downgrade to the SHA-1 bank.
func TestVerify_fails_if_only_the_SHA1_bank_was_quoted(t *testing.T) {
	tpm, b := newTPM("a"), softhost.Banks("quote", attest.SHA1)
	_, err := quote.Verify(tpm.Quote(nonce, b), parse(t, tpm.AKPublic()), nonce, b)
	wantKind(t, err, quote.KindPCRs)
}

// Attack 19.
func TestVerify_fails_if_the_signature(t *testing.T) {
	tpm := newTPM("a")
	ak := parse(t, tpm.AKPublic())
	q := tpm.Quote(nonce, banks())
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](q.Signature)
	if err != nil {
		t.Fatal(err)
	}
	ecc, err := sig.Signature.ECDSA()
	if err != nil {
		t.Fatal(err)
	}
	r, s := new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer)
	n := elliptic.P256().Params().N
	zero := new(big.Int)
	sha1sum := sha1.Sum(q.Attest)
	rsaSig := tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)}})})
	withHash := func(h tpm2.TPMAlgID) []byte {
		c := *ecc
		c.Hash = h
		return tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &c)})
	}
	hmacSig := tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgHMAC, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgHMAC, &tpm2.TPMTHA{HashAlg: tpm2.TPMAlgSHA1, Digest: sha1sum[:]})})
	for name, c := range map[string]struct {
		signature []byte
		kind      quote.Kind
	}{
		"is missing":                    {nil, quote.KindMalformed},
		"is NULL":                       {binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgNull)), quote.KindAlgorithm},
		"has trailing bytes":            {append(bytes.Clone(q.Signature), 0), quote.KindMalformed},
		"is cut short":                  {q.Signature[:len(q.Signature)-1], quote.KindMalformed},
		"has r = 0":                     {softtpm.Signature(zero, s), quote.KindSignature},
		"has s = 0":                     {softtpm.Signature(r, zero), quote.KindSignature},
		"has r = s = 0":                 {softtpm.Signature(zero, zero), quote.KindSignature},
		"has r = order":                 {softtpm.Signature(n, s), quote.KindSignature},
		"has r + order":                 {softtpm.Signature(new(big.Int).Add(r, n), s), quote.KindSignature},
		"has s + order":                 {softtpm.Signature(r, new(big.Int).Add(s, n)), quote.KindSignature},
		"has r and s exchanged":         {softtpm.Signature(s, r), quote.KindSignature},
		"is another's (CVE-2023-3674)":  {newTPM("b").Quote(nonce, banks()).Signature, quote.KindSignature},
		"is by RSA":                     {rsaSig, quote.KindAlgorithm},
		"is an HMAC":                    {hmacSig, quote.KindAlgorithm},
		"says SHA-1":                    {withHash(tpm2.TPMAlgSHA1), quote.KindAlgorithm},
		"says SHA-384":                  {withHash(tpm2.TPMAlgSHA384), quote.KindAlgorithm},
		"says a hash that is not known": {withHash(0x7777), quote.KindAlgorithm},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := quote.Verify(attest.Quote{Attest: q.Attest, Signature: c.signature}, ak, nonce, banks())
			wantKind(t, err, c.kind)
			if v != nil {
				t.Error("something was handed out as verified")
			}
		})
	}
}

func TestVerify_fails_if_it_is_not_given_a_key_and_32_bytes_to_expect(t *testing.T) {
	tpm := newTPM("a")
	for _, n := range [][]byte{nil, {}, make([]byte, 31)} {
		if v, err := quote.Verify(tpm.Quote(n, banks()), parse(t, tpm.AKPublic()), n, banks()); v != nil || err == nil {
			t.Errorf("%d bytes of qualifying data are enough", len(n))
		}
	}
	if v, err := quote.Verify(tpm.Quote(nonce, banks()), nil, nonce, banks()); v != nil || err == nil {
		t.Error("a quote was verified without a key")
	}
}

// Attack 3, 11: genuine pieces of two machines.
func TestVerify_fails_if_the_quote_is_another_machines(t *testing.T) {
	_, err := quote.Verify(newTPM("b").Quote(nonce, banks()), parse(t, newTPM("a").AKPublic()), nonce, banks())
	wantKind(t, err, quote.KindSigner)
}

// Whatever bit of a quote is flipped, it does not verify.
func TestVerify_fails_if_any_bit_is_flipped(t *testing.T) {
	tpm := newTPM("a")
	ak := parse(t, tpm.AKPublic())
	good := tpm.Quote(nonce, banks())
	rapid.Check(t, func(t *rapid.T) {
		p := good.Parameters()
		bit := rapid.IntRange(16, 8*len(p)-1).Draw(t, "bit")
		p[bit/8] ^= 1 << (bit % 8)
		q, err := attest.ParseQuoteParameters(p)
		if err != nil {
			return
		}
		if v, err := quote.Verify(q, ak, nonce, banks()); err == nil || v != nil {
			t.Fatal("a changed quote verifies")
		}
		if q.Hash() == good.Hash() {
			t.Fatal("a changed quote has the same hash")
		}
	})
}

// What a quote costs beyond its one signature.
func BenchmarkVerify(b *testing.B) {
	tpm, values := newTPM("a"), banks()
	ak, q := parse(b, tpm.AKPublic()), tpm.Quote(nonce, values)
	for b.Loop() {
		if _, err := quote.Verify(q, ak, nonce, values); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBareECDSA(b *testing.B) {
	tpm := newTPM("a")
	digest := sha256.Sum256(nonce)
	sig, err := tpm.AK().Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !ecdsa.VerifyASN1(&tpm.AK().PublicKey, digest[:], sig) {
			b.Fatal("the signature does not hold")
		}
	}
}

func BenchmarkParseAK(b *testing.B) {
	p := newTPM("a").AKPublic()
	for b.Loop() {
		parse(b, p)
	}
}
