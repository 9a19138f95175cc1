package sealed_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/sealed"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
)

type vtpm struct {
	*tpmtest.TPM
	ek []byte
	ak *tpmkeys.AK
}

func start(t *testing.T, n int) vtpm {
	t.Helper()
	v := vtpm{TPM: tpmtest.New(t, tpmtest.Identity(n))}
	var err error
	if v.ek, err = tpmkeys.ReadEK(v); err != nil {
		t.Fatal(err)
	}
	if v.ak, err = tpmkeys.CreateAK(v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v vtpm) purpose(t *testing.T) sealed.For {
	t.Helper()
	name, err := quote.NameOf(v.ek)
	if err != nil {
		t.Fatal(err)
	}
	return sealed.For{VM: attest.UUID{7}, Epoch: 3, EKName: name, AKName: v.ak.Name, Nonce: bytes.Repeat([]byte{1}, sealed.NonceSize), Name: "disk"}
}

func seal(t *testing.T, v vtpm, f sealed.For, secret string) *sealed.Box {
	t.Helper()
	b, err := sealed.Seal(rand.Reader, v.ek, f, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealed_opens_in_its_own_vTPM_for_what_it_was_sealed_for_and_nothing_else(t *testing.T) {
	v := start(t, 0)
	f := v.purpose(t)
	box := seal(t, v, f, "the key of a disk")
	if bytes.Contains(box.Data, []byte("disk")) {
		t.Error("the secret crosses in clear")
	}
	content, err := tpmkeys.Activate(v, v.ak, box.CredentialBlob, box.Secret)
	if err != nil || !sealed.IsContent(content) {
		t.Fatal(content, err)
	}
	if got, err := sealed.Open(content, f, box); err != nil || string(got) != "the key of a disk" {
		t.Fatalf("%q, %v", got, err)
	}
	for what, change := range map[string]func(*sealed.For, *sealed.Box){
		"another VM with the same vTPM":   func(f *sealed.For, _ *sealed.Box) { f.VM[0]++ },
		"another run of it":               func(f *sealed.For, _ *sealed.Box) { f.Epoch++ },
		"another request (a replay)":      func(f *sealed.For, _ *sealed.Box) { f.Nonce = bytes.Repeat([]byte{2}, sealed.NonceSize) },
		"another name":                    func(f *sealed.For, _ *sealed.Box) { f.Name = "other" },
		"another EK":                      func(f *sealed.For, _ *sealed.Box) { f.EKName = f.AKName },
		"another AK":                      func(f *sealed.For, _ *sealed.Box) { f.AKName = f.EKName },
		"a changed ciphertext":            func(_ *sealed.For, b *sealed.Box) { b.Data = append([]byte{b.Data[0] ^ 1}, b.Data[1:]...) },
		"a cut ciphertext":                func(_ *sealed.For, b *sealed.Box) { b.Data = b.Data[:len(b.Data)-1] },
		"no ciphertext":                   func(_ *sealed.For, b *sealed.Box) { b.Data = nil },
		"a nonce that is short":           func(f *sealed.For, _ *sealed.Box) { f.Nonce = f.Nonce[:8] },
		"a name that is a path":           func(f *sealed.For, _ *sealed.Box) { f.Name = "../etc/passwd" },
		"an IV that is long":              func(_ *sealed.For, b *sealed.Box) { b.IV = make([]byte, 16) },
		"a ciphertext beyond every bound": func(_ *sealed.For, b *sealed.Box) { b.Data = make([]byte, sealed.MaxSecret+17) },
	} {
		g, b := f, *box
		change(&g, &b)
		if got, err := sealed.Open(content, g, &b); !errors.Is(err, sealed.ErrSealed) || got != nil {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	if _, err := sealed.Open(bytes.Repeat([]byte{5}, 32), f, box); !errors.Is(err, sealed.ErrSealed) {
		t.Errorf("by the content of a credential of another kind: %v", err)
	}
}

func TestSealed_does_not_open_in_another_vTPM(t *testing.T) {
	v, other := start(t, 0), start(t, 1)
	box := seal(t, v, v.purpose(t), "secret")
	if content, err := tpmkeys.Activate(other, other.ak, box.CredentialBlob, box.Secret); !errors.Is(err, tpmkeys.ErrCredential) {
		t.Errorf("%x, %v", content, err)
	}
}

func TestSeal_refuses_what_it_cannot_seal_for(t *testing.T) {
	v := start(t, 0)
	good := v.purpose(t)
	for what, c := range map[string]struct {
		secret string
		change func(*sealed.For)
	}{
		"nothing":   {"", func(*sealed.For) {}},
		"too much":  {strings.Repeat("x", sealed.MaxSecret+1), func(*sealed.For) {}},
		"no nonce":  {"x", func(f *sealed.For) { f.Nonce = nil }},
		"no AK":     {"x", func(f *sealed.For) { f.AKName = nil }},
		"dot names": {"x", func(f *sealed.For) { f.Name = ".." }},
	} {
		f := good
		c.change(&f)
		if b, err := sealed.Seal(rand.Reader, v.ek, f, []byte(c.secret)); err == nil || b != nil {
			t.Errorf("%s: sealed", what)
		}
	}
}
