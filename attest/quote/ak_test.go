package quote_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/tpmkeys"
)

// Attacks 14, 15: a key that can sign what no TPM made, or that exists elsewhere too.
func TestParseAK_refuses_a_key_that(t *testing.T) {
	good, err := tpm2.Unmarshal[tpm2.TPMTPublic](newTPM("a").AKPublic())
	if err != nil {
		t.Fatal(err)
	}
	modulus := bytes.Repeat([]byte{0xc3}, 256)
	ecc := func(p *tpm2.TPMTPublic) *tpm2.TPMSECCParms {
		d, err := p.Parameters.ECCDetail()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	change := func(f func(p *tpm2.TPMTPublic)) []byte {
		p, err := tpm2.Unmarshal[tpm2.TPMTPublic](tpm2.Marshal(good))
		if err != nil {
			t.Fatal(err)
		}
		f(p)
		return tpm2.Marshal(p)
	}
	for name, public := range map[string][]byte{
		"is not restricted (15)": change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false }),
		"may be duplicated":      change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false }),
		"may get another parent": change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedParent = false }),
		"was imported (14)":      change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false }),
		"also decrypts (14)":     change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = true }),
		"does not sign":          change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = false }),
		"signs certificates":     change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.X509Sign = true }),
		"has a SHA-1 name":       change(func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA1 }),
		"has no name":            change(func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgNull }),
		"signs with SHA-1 (19)": change(func(p *tpm2.TPMTPublic) {
			ecc(p).Scheme.Details = tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA1})
		}),
		"signs by another scheme": change(func(p *tpm2.TPMTPublic) {
			ecc(p).Scheme = tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDAA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDAA, &tpm2.TPMSSchemeECDAA{HashAlg: tpm2.TPMAlgSHA256})}
		}),
		"leaves the scheme to callers": change(func(p *tpm2.TPMTPublic) { ecc(p).Scheme = tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull} }),
		"is on P-224":                  change(func(p *tpm2.TPMTPublic) { ecc(p).CurveID = tpm2.TPMECCNistP224 }),
		"is on P-521":                  change(func(p *tpm2.TPMTPublic) { ecc(p).CurveID = tpm2.TPMECCNistP521 }),
		"is not on its curve": change(func(p *tpm2.TPMTPublic) {
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)}})
		}),
		"has an endless coordinate": change(func(p *tpm2.TPMTPublic) {
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: bytes.Repeat([]byte{0xff}, 500)}, Y: tpm2.TPM2BECCParameter{Buffer: []byte{1}}})
		}),
		"has no point":               change(func(p *tpm2.TPMTPublic) { p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}) }),
		"is RSA-1024":                rsaPublic(modulus[:128], 1024, tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256),
		"says RSA-2048 and has less": rsaPublic(modulus[:128], 2048, tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256),
		"is RSA without a scheme":    rsaPublic(modulus, 2048, tpm2.TPMAlgNull, tpm2.TPMAlgSHA256),
		"is RSA with SHA-1":          rsaPublic(modulus, 2048, tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA1),
		"has an even modulus":        rsaPublic(append(bytes.Clone(modulus[:255]), 2), 2048, tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256),
		"has no modulus":             rsaPublic(nil, 2048, tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256),
		"is an endorsement key":      newTPM("a").EKPublic(),
		"is an HMAC key":             hmacKey(),
		"is nothing":                 nil,
		"has trailing bytes":         append(newTPM("a").AKPublic(), 0),
		"is cut short":               newTPM("a").AKPublic()[:20],
		"is larger than any":         make([]byte, attest.MaxPublic+1),
	} {
		t.Run(name, func(t *testing.T) {
			ak, err := quote.ParseAK(public)
			wantKind(t, err, quote.KindAK)
			if ak != nil {
				t.Error("a key was handed out")
			}
		})
	}
}

func hmacKey() []byte {
	p := tpmkeys.AKTemplate()
	p.Type = tpm2.TPMAlgKeyedHash
	p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgHMAC, Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA256})}})
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: make([]byte, 32)})
	return tpm2.Marshal(p)
}

func TestRSA_keys_of_both_schemes_verify_and_do_not_stand_in_for_each_other(t *testing.T) {
	ssa, pss := newRSA(t, 2048, tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256), newRSA(t, 2048, tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA256)
	tpm := newTPM("a")
	for _, k := range []*rsaAK{ssa, pss} {
		ak := parse(t, k.public)
		q := k.sign(t, tpm.Attest(nonce, banks()))
		if _, err := quote.Verify(q, ak, nonce, banks()); err != nil {
			t.Errorf("%s: %v", ak.Scheme(), err)
		}
		q.Signature[len(q.Signature)-1] ^= 1
		_, err := quote.Verify(q, ak, nonce, banks())
		wantKind(t, err, quote.KindSignature)
	}
	// The same key, its public area saying RSAPSS, and a PKCS #1 signature (attack 19).
	swapped := *ssa
	swapped.public = rsaPublic(ssa.key.N.Bytes(), 2048, tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA256)
	_, err := quote.Verify(swapped.sign(t, tpm.Attest(nonce, banks())), parse(t, swapped.public), nonce, banks())
	wantKind(t, err, quote.KindAlgorithm)
}

func TestNameOf_is_the_name_that_a_TPM_computes(t *testing.T) {
	ek := newTPM("a").EKPublic()
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](ek)
	if err != nil {
		t.Fatal(err)
	}
	want, err := tpm2.ObjectName(pub)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := quote.NameOf(ek); err != nil || !bytes.Equal(got, want.Buffer) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, {1}, append(bytes.Clone(ek), 0), ek[:len(ek)-1]} {
		_, err := quote.NameOf(bad)
		wantKind(t, err, quote.KindKey)
	}
	binary.BigEndian.PutUint16(ek[2:], uint16(tpm2.TPMAlgSHA1))
	_, err = quote.NameOf(ek)
	wantKind(t, err, quote.KindKey)
}

// No input makes the parsers panic, and no mutation of a signed quote verifies.
func FuzzVerify(f *testing.F) {
	tpm := newTPM("a")
	ak, err := quote.ParseAK(tpm.AKPublic())
	if err != nil {
		f.Fatal(err)
	}
	good := tpm.Quote(nonce, banks())
	f.Add(good.Attest, good.Signature)
	rsaSig := tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSAPSS, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256})})
	f.Add(good.Attest[:40], rsaSig)
	f.Fuzz(func(t *testing.T, attested, signature []byte) {
		v, err := quote.Verify(attest.Quote{Attest: attested, Signature: signature}, ak, nonce, banks())
		if (v == nil) != (err != nil) {
			t.Fatalf("%v, %v", v, err)
		}
		if err == nil && !bytes.Equal(attested, good.Attest) {
			t.Fatal("a statement verifies that the key did not sign")
		}
		// Past the signature too: the parts behind it see every input that parses.
		resigned := tpm.Sign(attested)
		v, err = quote.Verify(resigned, ak, nonce, banks())
		if (v == nil) != (err != nil) {
			t.Fatalf("%v, %v", v, err)
		}
	})
}

func FuzzParseAK(f *testing.F) {
	f.Add(newTPM("a").AKPublic())
	f.Add(newTPM("a").EKPublic())
	f.Add(rsaPublic(bytes.Repeat([]byte{0xc3}, 256), 2048, tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA256))
	f.Add(hmacKey())
	f.Fuzz(func(t *testing.T, public []byte) {
		ak, err := quote.ParseAK(public)
		if (ak == nil) != (err != nil) {
			t.Fatalf("%v, %v", ak, err)
		}
		name, err2 := quote.NameOf(public)
		if err == nil && (err2 != nil || !bytes.Equal(name, ak.Name())) {
			t.Fatalf("%v, %v", name, err2)
		}
	})
}
