package credential_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/internal/credential"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
)

// eccCredential opens a credential by the persistent ECC P-384 EK or one from the TCG's P-256 template.
func eccCredential(t *testing.T, tpm *tpmtest.TPM, content []byte) []byte {
	t.Helper()
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := tpmkeys.CreateAK(tpm)
	if err != nil {
		t.Fatal(err)
	}
	blob, secret, err := credential.Make(rand.Reader, ek.OutPublic.Bytes(), ak.Name, content)
	if err != nil {
		t.Fatal(err)
	}
	rsp, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.AuthHandle{Handle: ak.Handle, Name: tpm2.TPM2BName{Buffer: ak.Name}, Auth: tpm2.PasswordAuth(nil)},
		KeyHandle: tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16,
			func(tpm transport.TPM, s tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
				_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: s, NonceTPM: nonce}.Execute(tpm)
				return err
			})},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob[2:]},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret[2:]},
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return rsp.CertInfo.Buffer
}

func TestMake_is_opened_by_an_ECC_endorsement_key(t *testing.T) {
	content := bytes.Repeat([]byte{3}, 32)
	if got := eccCredential(t, tpmtest.New(t), content); !bytes.Equal(got, content) {
		t.Fatalf("opened %x", got)
	}
}

// Attack 14 and CVE-2023-38201: a key that opens anything for anyone proves nothing.
func TestMake_refuses_keys_that_are_no_endorsement_key(t *testing.T) {
	name := append([]byte{0, 0x0b}, make([]byte, 32)...)
	change := func(f func(*tpm2.TPMAObject)) []byte {
		p := tpm2.RSAEKTemplate
		p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: bytes.Repeat([]byte{0xff}, 256)})
		f(&p.ObjectAttributes)
		return tpm2.Marshal(p)
	}
	if _, _, err := credential.Make(rand.Reader, change(func(*tpm2.TPMAObject) {}), name, []byte{1}); err != nil {
		t.Fatalf("a whole EK: %v", err)
	}
	for what, ek := range map[string][]byte{
		"nothing":          nil,
		"too long":         make([]byte, 2000),
		"not restricted":   change(func(a *tpm2.TPMAObject) { a.Restricted = false }),
		"duplicable":       change(func(a *tpm2.TPMAObject) { a.FixedTPM = false }),
		"imported":         change(func(a *tpm2.TPMAObject) { a.SensitiveDataOrigin = false }),
		"also signs":       change(func(a *tpm2.TPMAObject) { a.SignEncrypt = true }),
		"does not decrypt": change(func(a *tpm2.TPMAObject) { a.Decrypt = false }),
		"an AK":            tpm2.Marshal(tpmkeys.AKTemplate()),
		"trailing bytes":   append(change(func(*tpm2.TPMAObject) {}), 0),
	} {
		if _, _, err := credential.Make(rand.Reader, ek, name, []byte{1}); !errors.Is(err, credential.ErrEK) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestMake_bounds_secret_and_name(t *testing.T) {
	for _, c := range [][2]int{{34, 0}, {34, 33}, {0, 32}, {21, 32}, {67, 32}} {
		if _, _, err := credential.Make(rand.Reader, nil, make([]byte, c[0]), make([]byte, c[1])); err == nil || errors.Is(err, credential.ErrEK) {
			t.Errorf("name of %d, secret of %d bytes: %v", c[0], c[1], err)
		}
	}
}

func FuzzMake(f *testing.F) {
	f.Add(tpm2.Marshal(tpm2.RSAEKTemplate))
	f.Add(tpm2.Marshal(tpm2.ECCEKTemplate))
	f.Add(tpm2.Marshal(tpmkeys.AKTemplate()))
	name := append([]byte{0, 0x0b}, make([]byte, 32)...)
	f.Fuzz(func(t *testing.T, ek []byte) {
		blob, secret, err := credential.Make(rand.Reader, ek, name, make([]byte, 32))
		if err != nil && (blob != nil || secret != nil) {
			t.Error("an error with a credential")
		}
	})
}
