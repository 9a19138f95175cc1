package tpmkeys_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
)

var sealedTo = []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{4, 7}}}

func TestUnseal_gives_the_secret_to_the_same_TPM_in_the_same_state_only(t *testing.T) {
	tpm, secret := tpmtest.New(t), bytes.Repeat([]byte("s"), tpmkeys.MaxSealed)
	sealed, banks, err := tpmkeys.Seal(tpm, secret, sealedTo)
	if err != nil || len(banks) != 1 || len(banks[0].PCRs) != 2 {
		t.Fatal(banks, err)
	}
	opens := func(what string, tpm transport.TPM, want error) {
		t.Helper()
		got, err := tpmkeys.Unseal(tpm, sealed)
		if !errors.Is(err, want) || (want == nil) != bytes.Equal(got, secret) || want != nil && got != nil {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	opens("at once", tpm, nil)
	tpm.PowerCycle(t)
	opens("after a reboot", tpm, nil)
	extend(t, tpm, 10)
	opens("after another PCR changed", tpm, nil)
	extend(t, tpm, 7)
	opens("after PCR 7 changed", tpm, tpmkeys.ErrPCRs)
	for range 10 { // no lock-out, nothing left loaded
		opens("again and again", tpm, tpmkeys.ErrPCRs)
	}
	tpm.PowerCycle(t)
	opens("back in its state", tpm, nil)
	opens("another TPM", tpmtest.New(t, tpmtest.Identity(1)), tpmkeys.ErrOtherTPM)
	if _, err := (tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	opens("cleared", tpm, tpmkeys.ErrOtherTPM)
}

func TestUnseal_refuses_a_sealed_secret_that_was_tampered_with(t *testing.T) {
	tpm := tpmtest.New(t)
	for name, change := range map[string]func(*tpmkeys.Sealed){
		"the wrapped secret":  func(s *tpmkeys.Sealed) { s.Private[len(s.Private)-1] ^= 1 },
		"its policy":          func(s *tpmkeys.Sealed) { s.Public[len(s.Public)-40] ^= 1 },
		"no bytes":            func(s *tpmkeys.Sealed) { s.Private, s.Public = nil, nil },
		"other PCRs":          func(s *tpmkeys.Sealed) { s.PCRs = []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{4}}} },
		"PCRs that are none":  func(s *tpmkeys.Sealed) { s.PCRs = nil },
		"a bank that is none": func(s *tpmkeys.Sealed) { s.PCRs = []attest.PCRSelection{{Alg: attest.SHA384, PCRs: []uint8{7}}} },
	} {
		sealed, _, err := tpmkeys.Seal(tpm, []byte("secret"), sealedTo)
		if err != nil {
			t.Fatal(err)
		}
		change(sealed)
		if got, err := tpmkeys.Unseal(tpm, sealed); err == nil || got != nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Somebody who reads the bus of a discrete TPM sees no secret.
func TestSeal_and_Unseal_never_show_the_secret_on_the_bus(t *testing.T) {
	secret := []byte("a secret that nobody sees")
	bus := &tap{TPM: tpmtest.New(t)}
	sealed, _, err := tpmkeys.Seal(bus, secret, sealedTo)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tpmkeys.Unseal(bus, sealed); err != nil || !bytes.Equal(got, secret) {
		t.Fatal(err)
	}
	if bytes.Contains(bus.seen, secret) {
		t.Error("the secret crossed in clear")
	}
}

type tap struct {
	transport.TPM
	seen []byte
}

func (t *tap) Send(b []byte) ([]byte, error) {
	r, err := t.TPM.Send(b)
	t.seen = append(append(t.seen, b...), r...)
	return r, err
}

func TestSeal_refuses_a_secret_of_a_wrong_size(t *testing.T) {
	for _, n := range []int{0, tpmkeys.MaxSealed + 1} {
		if _, _, err := tpmkeys.Seal(tpmtest.New(t), make([]byte, n), sealedTo); err == nil {
			t.Errorf("%d bytes accepted", n)
		}
	}
}
