package quote_test

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/softtpm"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
)

func all(alg attest.Alg) attest.PCRSelection {
	s := attest.PCRSelection{Alg: alg}
	for i := range uint8(attest.PCRCount) {
		s.PCRs = append(s.PCRs, i)
	}
	return s
}

func realAK(t *testing.T, tpm *tpmtest.TPM) (*tpmkeys.AK, *quote.AK) {
	t.Helper()
	loaded, err := tpmkeys.CreateAK(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return loaded, parse(t, loaded.Public)
}

func TestVerify_takes_quotes_of_a_real_TPM(t *testing.T) {
	tpm := tpmtest.New(t, tpmtest.AllBanks())
	loaded, ak := realAK(t, tpm)
	if !bytes.Equal(ak.Name(), loaded.Name) {
		t.Errorf("name %v, the TPM says %v", ak.Name(), loaded.Name)
	}
	for name, sel := range map[string][]attest.PCRSelection{
		"one PCR":               {{Alg: attest.SHA256, PCRs: []uint8{10}}},
		"a whole bank":          {all(attest.SHA256)},
		"all banks":             {all(attest.SHA1), all(attest.SHA256), all(attest.SHA384), all(attest.SHA512)},
		"banks from the back":   {all(attest.SHA512), all(attest.SHA256)},
		"some PCRs of two each": {{Alg: attest.SHA384, PCRs: []uint8{0, 23}}, {Alg: attest.SHA256, PCRs: []uint8{7, 17}}},
	} {
		t.Run(name, func(t *testing.T) {
			q, values, err := tpmkeys.Quote(tpm, loaded, nonce, sel)
			if err != nil {
				t.Fatal(err)
			}
			v, err := quote.Verify(q, ak, nonce, values)
			if err != nil {
				t.Fatal(err)
			}
			if v.ResetCount == 0 || v.ResetCount > 1000 {
				t.Errorf("resetCount %d is not in clear", v.ResetCount)
			}
			values[0].PCRs[0].Value[0] ^= 1
			_, err = quote.Verify(q, ak, nonce, values)
			wantKind(t, err, quote.KindPCRs)
		})
	}
}

func TestVerify_sees_boots_of_a_real_TPM(t *testing.T) {
	tpm := tpmtest.New(t)
	count := func() uint32 {
		loaded, ak := realAK(t, tpm)
		q, values, err := tpmkeys.Quote(tpm, loaded, nonce, []attest.PCRSelection{all(attest.SHA256)})
		if err != nil {
			t.Fatal(err)
		}
		v, err := quote.Verify(q, ak, nonce, values)
		if err != nil {
			t.Fatal(err)
		}
		return v.ResetCount
	}
	before := count()
	tpm.PowerCycle(t)
	if after := count(); after != before+1 {
		t.Errorf("resetCount %d after %d", after, before)
	}
}

// create makes a primary key of a template and quotes with it.
func quoteWith(t *testing.T, tpm *tpmtest.TPM, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic, banks ...attest.PCRSelection) (q attest.Quote, public []byte) {
	t.Helper()
	key := primary(t, tpm, hierarchy, template)
	var sel tpm2.TPMLPCRSelection
	for _, b := range banks {
		bitmap := make([]byte, 3)
		for _, p := range b.PCRs {
			bitmap[p/8] |= 1 << (p % 8)
		}
		sel.PCRSelections = append(sel.PCRSelections, tpm2.TPMSPCRSelection{Hash: tpm2.TPMAlgID(b.Alg), PCRSelect: bitmap})
	}
	rsp, err := tpm2.Quote{
		SignHandle: tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)}, QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: sel,
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return attest.Quote{Attest: rsp.Quoted.Bytes(), Signature: tpm2.Marshal(rsp.Signature)}, key.OutPublic.Bytes()
}

func primary(t *testing.T, tpm *tpmtest.TPM, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) *tpm2.CreatePrimaryResponse {
	t.Helper()
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)}, InPublic: tpm2.New2B(template)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(tpm); err != nil {
			t.Error(err)
		}
	})
	return key
}

func values(t *testing.T, tpm *tpmtest.TPM, sel ...attest.PCRSelection) []attest.PCRBank {
	t.Helper()
	b, err := tpmkeys.ReadPCRs(tpm, sel)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVerify_takes_every_scheme_of_a_real_TPM(t *testing.T) {
	tpm := tpmtest.New(t)
	rsaTemplate := func(scheme tpm2.TPMAlgID) tpm2.TPMTPublic {
		p, err := tpm2.Unmarshal[tpm2.TPMTPublic](rsaPublic(nil, 2048, scheme, tpm2.TPMAlgSHA256))
		if err != nil {
			t.Fatal(err)
		}
		return *p
	}
	p384 := tpmkeys.AKTemplate()
	p384.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		CurveID: tpm2.TPMECCNistP384,
		Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA384})},
	})
	for scheme, template := range map[string]tpm2.TPMTPublic{"ecdsa-sha384": p384, "rsassa-sha256": rsaTemplate(tpm2.TPMAlgRSASSA), "rsapss-sha256": rsaTemplate(tpm2.TPMAlgRSAPSS)} {
		t.Run(scheme, func(t *testing.T) {
			q, public := quoteWith(t, tpm, tpm2.TPMRHEndorsement, template, all(attest.SHA256))
			ak := parse(t, public)
			if ak.Scheme() != scheme {
				t.Errorf("scheme %s", ak.Scheme())
			}
			if _, err := quote.Verify(q, ak, nonce, values(t, tpm, all(attest.SHA256))); err != nil {
				t.Error(err)
			}
		})
	}
}

// Attack 48: under the owner hierarchy resetCount is hidden, and so would be a rollback.
func TestVerify_refuses_a_real_TPMs_key_of_the_owner_hierarchy(t *testing.T) {
	tpm := tpmtest.New(t)
	q, public := quoteWith(t, tpm, tpm2.TPMRHOwner, tpmkeys.AKTemplate(), all(attest.SHA256))
	_, err := quote.Verify(q, parse(t, public), nonce, values(t, tpm, all(attest.SHA256)))
	wantKind(t, err, quote.KindSigner)
}

// A real TPM signs a quote over a bank that it has not allocated, with nothing in it.
func TestVerify_refuses_a_real_TPMs_quote_over_a_bank_it_does_not_have(t *testing.T) {
	tpm := tpmtest.New(t)
	q, public := quoteWith(t, tpm, tpm2.TPMRHEndorsement, tpmkeys.AKTemplate(), all(attest.SHA256), all(attest.SHA384))
	for name, v := range map[string][]attest.PCRBank{
		"without values": values(t, tpm, all(attest.SHA256)),
		"as empty bank":  append(values(t, tpm, all(attest.SHA256)), attest.PCRBank{Alg: attest.SHA384}),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := quote.Verify(q, parse(t, public), nonce, v)
			wantKind(t, err, quote.KindPCRs)
		})
	}
}

// Attack 15: what an unrestricted key is made to sign looks like a quote in every bit.
func TestParseAK_is_what_stops_a_forgery_by_a_real_TPMs_unrestricted_key(t *testing.T) {
	tpm := tpmtest.New(t)
	template := tpmkeys.AKTemplate()
	template.ObjectAttributes.Restricted = false
	_, public := quoteWith(t, tpm, tpm2.TPMRHEndorsement, template, all(attest.SHA256))
	_, err := quote.ParseAK(public)
	wantKind(t, err, quote.KindAK)
	describe(t, err, "not restricted")
}

// Attack 17: other statements that the same AK of a real TPM signs, with the same qualifying data.
func TestVerify_refuses_what_else_a_real_TPMs_AK_signs(t *testing.T) {
	tpm := tpmtest.New(t)
	loaded, ak := realAK(t, tpm)
	handle := tpm2.AuthHandle{Handle: loaded.Handle, Name: tpm2.TPM2BName{Buffer: loaded.Name}, Auth: tpm2.PasswordAuth(nil)}
	null, data := tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, tpm2.TPM2BData{Buffer: nonce}
	certified, err := tpm2.Certify{ObjectHandle: handle, SignHandle: handle, QualifyingData: data, InScheme: null}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	timed, err := tpm2.GetTime{PrivacyAdminHandle: tpm2.TPMRHEndorsement, SignHandle: handle, QualifyingData: data, InScheme: null}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]attest.Quote{
		"CERTIFY": {Attest: certified.CertifyInfo.Bytes(), Signature: tpm2.Marshal(certified.Signature)},
		"TIME":    {Attest: timed.TimeInfo.Bytes(), Signature: tpm2.Marshal(timed.Signature)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := quote.Verify(q, ak, nonce, values(t, tpm, all(attest.SHA256)))
			wantKind(t, err, quote.KindType)
		})
	}
}

func TestQualifiedName_is_the_one_a_real_TPM_reads_out(t *testing.T) {
	tpm := tpmtest.New(t)
	loaded, ak := realAK(t, tpm)
	rsp, err := tpm2.ReadPublic{ObjectHandle: loaded.Handle}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rsp.QualifiedName.Buffer, ak.QualifiedName()) || !bytes.Equal(ak.QualifiedName(), softtpm.Qualified(tpm2.TPMRHEndorsement, loaded.Name)) {
		t.Errorf("%v, the TPM says %x", ak.QualifiedName(), rsp.QualifiedName.Buffer)
	}
}
