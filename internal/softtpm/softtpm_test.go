package softtpm_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/credential"
	"virt-attest/internal/softtpm"
)

func TestQuote_passes_the_check_that_real_quotes_pass(t *testing.T) {
	tpm := softtpm.New(rand.Reader, softtpm.ECCEK())
	ak, err := quote.ParseAK(tpm.AKPublic())
	if err != nil {
		t.Fatal(err)
	}
	nonce := bytes.Repeat([]byte{7}, 32)
	banks := []attest.PCRBank{{Alg: attest.SHA256, PCRs: []attest.PCR{{Index: 10, Value: make([]byte, 32)}}}}
	v, err := quote.Verify(tpm.Quote(nonce, banks), ak, nonce, banks)
	if err != nil {
		t.Fatal(err)
	}
	if v.ResetCount != 1 || !v.Safe || !bytes.Equal(ak.Name(), tpm.AKName()) {
		t.Errorf("got %+v", v)
	}
}

func TestActivate_opens_a_credential_only_for_its_own_keys(t *testing.T) {
	for name, opts := range map[string][]softtpm.Option{"RSA": nil, "ECC": {softtpm.ECCEK()}} {
		t.Run(name, func(t *testing.T) {
			tpm, other := softtpm.New(rand.Reader, opts...), softtpm.New(rand.Reader, opts...)
			want := []byte("0123456789abcdef")
			blob, secret, err := credential.Make(rand.Reader, tpm.EKPublic(), tpm.AKName(), want)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := tpm.Activate(blob, secret); err != nil || !bytes.Equal(got, want) {
				t.Errorf("Activate = %q, %v", got, err)
			}
			if _, err := other.Activate(blob, secret); !errors.Is(err, softtpm.ErrActivate) {
				t.Errorf("another TPM activated it: %v", err)
			}
			blob, secret, err = credential.Make(rand.Reader, tpm.EKPublic(), other.AKName(), want)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tpm.Activate(blob, secret); !errors.Is(err, softtpm.ErrActivate) {
				t.Errorf("activated for an AK of another TPM: %v", err)
			}
		})
	}
}
