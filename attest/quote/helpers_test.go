package quote_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/softhost"
	"virt-attest/internal/softtpm"
	"virt-attest/internal/tpmkeys"
)

var nonce = bytes.Repeat([]byte{0xa5}, 32)

func newTPM(name string) *softtpm.TPM {
	seed := sha256.Sum256([]byte(name))
	return softtpm.New(bytes.NewReader(seed[:]), softtpm.ECCEK())
}

func parse(t testing.TB, public []byte) *quote.AK {
	t.Helper()
	ak, err := quote.ParseAK(public)
	if err != nil {
		t.Fatal(err)
	}
	return ak
}

// banks are PCRs 0-9 of sha256 and PCR 10 of sha1 and sha256, in one bank each.
func banks() []attest.PCRBank {
	b := softhost.Banks("quote", attest.SHA256, attest.SHA1)
	b[0].PCRs, b[1].PCRs = b[0].PCRs[:11], b[1].PCRs[10:11]
	return b
}

func wantKind(t *testing.T, err error, kind quote.Kind) {
	t.Helper()
	if !errors.Is(err, &quote.Error{Kind: kind}) {
		t.Errorf("got error %v, want one of kind %q", err, kind)
	}
}

// rsaAK signs as a TPM's RSA attestation key would.
type rsaAK struct {
	key    *rsa.PrivateKey
	scheme tpm2.TPMAlgID
	hash   tpm2.TPMAlgID
	public []byte
}

func newRSA(t testing.TB, bits int, scheme, hash tpm2.TPMAlgID) *rsaAK {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return &rsaAK{key: key, scheme: scheme, hash: hash, public: rsaPublic(key.N.Bytes(), bits, scheme, hash)}
}

func rsaPublic(modulus []byte, bits int, scheme, hash tpm2.TPMAlgID) []byte {
	var details tpm2.TPMUAsymScheme
	switch scheme {
	case tpm2.TPMAlgRSAPSS:
		details = tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: hash})
	case tpm2.TPMAlgRSASSA:
		details = tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeRSASSA{HashAlg: hash})
	default:
		scheme = tpm2.TPMAlgNull
	}
	p := tpmkeys.AKTemplate()
	p.Type = tpm2.TPMAlgRSA
	p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Scheme: tpm2.TPMTRSAScheme{Scheme: scheme, Details: details}, KeyBits: tpm2.TPMIRSAKeyBits(bits)})
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: modulus})
	return tpm2.Marshal(p)
}

func (k *rsaAK) sign(t testing.TB, st *tpm2.TPMSAttest) attest.Quote {
	t.Helper()
	st.QualifiedSigner = tpm2.TPM2BName{Buffer: softtpm.Qualified(tpm2.TPMRHEndorsement, softtpm.Name(k.public))}
	attested := tpm2.Marshal(st)
	digest := sha256.Sum256(attested)
	contents := &tpm2.TPMSSignatureRSA{Hash: k.hash}
	sig := tpm2.TPMTSignature{SigAlg: k.scheme}
	var err error
	if k.scheme == tpm2.TPMAlgRSAPSS {
		contents.Sig.Buffer, err = rsa.SignPSS(rand.Reader, k.key, crypto.SHA256, digest[:], nil)
	} else {
		contents.Sig.Buffer, err = rsa.SignPKCS1v15(nil, k.key, crypto.SHA256, digest[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	sig.Signature = tpm2.NewTPMUSignature(k.scheme, contents)
	return attest.Quote{Attest: attested, Signature: tpm2.Marshal(sig)}
}

// describe is for errors that must tell an operator something.
func describe(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(fmt.Sprint(err), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}
