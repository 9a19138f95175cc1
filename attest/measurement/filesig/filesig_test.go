package filesig_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"virt-attest/attest/measurement/filesig"
	"virt-attest/internal/measuretest"
)

func load(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key(t testing.TB, name string) *filesig.Key {
	t.Helper()
	k, err := filesig.ParseKey(load(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The signatures in testdata are by evmctl 1.4 (Debian 12, ima-evm-utils) of testdata/file.txt:
//
//	evmctl ima_sign -a sha256 --sigfile -k ec.pem file.txt
//
// with keys and certificates of openssl; skid.der is ec.der's key with a subject key identifier of its own.
func TestVerify_takes_what_evmctl_signs(t *testing.T) {
	file := load(t, "file.txt")
	d256, d384, d512 := sha256.Sum256(file), sha512.Sum384(file), sha512.Sum512(file)
	keys := filesig.NewKeys([]*filesig.Key{key(t, "rsa.der"), key(t, "ec.der")})
	for name, d := range map[string]struct {
		alg    string
		digest []byte
	}{
		"ec-sha256": {"sha256", d256[:]}, "ec-sha384": {"sha384", d384[:]}, "ec-sha512": {"sha512", d512[:]},
		"rsa-sha256": {"sha256", d256[:]}, "rsa-sha384": {"sha384", d384[:]}, "rsa-sha512": {"sha512", d512[:]},
	} {
		sig := load(t, name+".sig")
		if _, err := filesig.Verify(sig, d.alg, d.digest, keys); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		other := slices.Clone(d.digest)
		other[0] ^= 1
		if _, err := filesig.Verify(sig, d.alg, other, keys); !errors.Is(err, filesig.ErrBad) {
			t.Errorf("%s of another file: %v", name, err)
		}
		if _, err := filesig.Verify(sig, "verity:"+d.alg, d.digest, keys); !errors.Is(err, filesig.ErrBad) {
			t.Errorf("%s as an fs-verity digest: %v", name, err)
		}
	}
	if _, err := filesig.Verify(load(t, "skid-sha256.sig"), "sha256", d256[:], keys); !errors.Is(err, filesig.ErrUnknownKey) {
		t.Errorf("a key ID that no key has: %v", err)
	}
	for _, name := range []string{"skid.der", "ec.pub"} { // by the certificate's identifier, by the key alone
		keys, sig := filesig.NewKeys([]*filesig.Key{key(t, name)}), load(t, "ec-sha256.sig")
		if name == "skid.der" {
			sig = load(t, "skid-sha256.sig")
		}
		if k, err := filesig.Verify(sig, "sha256", d256[:], keys); err != nil || k.String() != key(t, "ec.der").String() {
			t.Errorf("%s: %v", name, err)
		}
	}
	d1 := sha1.Sum(file)
	if _, err := filesig.Verify(load(t, "rsa-sha1.sig"), "sha1", d1[:], keys); !errors.Is(err, filesig.ErrBad) {
		t.Errorf("SHA-1: %v", err)
	}
}

func signer(t testing.TB) *measuretest.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return measuretest.NewSigner(k)
}

func TestVerify_tells_files_from_fsverity_digests(t *testing.T) {
	s := signer(t)
	k, err := filesig.ParseCertificate(s.Cert)
	if err != nil {
		t.Fatal(err)
	}
	keys := filesig.NewKeys([]*filesig.Key{k})
	d := sha256.Sum256([]byte("content"))
	v3 := sha256.Sum256(append([]byte{3, 4}, d[:]...))
	for name, test := range map[string]struct {
		sig []byte
		alg string
		ok  bool
	}{
		"fs-verity, version 3":               {s.SignVerity(d[:]), "verity:sha256", true},
		"fs-verity's as a file's":            {s.SignVerity(d[:]), "sha256", false},
		"a file's, version 3":                {s.Signature(3, 3, v3[:]), "sha256", true},
		"a file's, version 3, for fs-verity": {s.Signature(3, 3, v3[:]), "verity:sha256", false},
		"version 2 of an fs-verity digest":   {s.Signature(6, 2, d[:]), "verity:sha256", false},
		"version 1":                          {s.Signature(3, 1, d[:]), "sha256", false},
		"EVM's portable signature":           {s.Signature(5, 2, d[:]), "sha256", false},
	} {
		if _, err := filesig.Verify(test.sig, test.alg, d[:], keys); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerify_refuses_what_is_damaged(t *testing.T) {
	s := signer(t)
	k, err := filesig.ParseCertificate(s.Cert)
	if err != nil {
		t.Fatal(err)
	}
	keys := filesig.NewKeys([]*filesig.Key{k})
	d := sha256.Sum256([]byte("content"))
	good := s.Sign("content")
	edit := func(at int, v byte) []byte { b := slices.Clone(good); b[at] = v; return b }
	for name, test := range map[string]struct {
		sig  []byte
		want error
	}{
		"nothing":               {nil, filesig.ErrNone},
		"a plain hash":          {append([]byte{1}, d[:]...), filesig.ErrNone},
		"an HMAC":               {append([]byte{2}, d[:20]...), filesig.ErrNone},
		"half a header":         {good[:8], filesig.ErrNone},
		"a header alone":        {good[:9], filesig.ErrBad},
		"a byte less":           {good[:len(good)-1], filesig.ErrBad},
		"a byte more":           {append(slices.Clone(good), 0), filesig.ErrBad},
		"another hash":          {edit(2, 5), filesig.ErrBad},
		"an unknown hash":       {edit(2, 200), filesig.ErrBad},
		"another size":          {edit(8, 1), filesig.ErrBad},
		"another key's ID":      {edit(3, good[3]^1), filesig.ErrUnknownKey},
		"a changed signature":   {edit(len(good)-1, good[len(good)-1]^1), filesig.ErrBad},
		"a signature too large": {append(slices.Clone(good[:7]), append([]byte{0x10, 0}, make([]byte, 4096)...)...), filesig.ErrBad},
	} {
		if _, err := filesig.Verify(test.sig, "sha256", d[:], keys); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if _, err := filesig.Verify(good, "sha256", d[:], &filesig.Keys{}); !errors.Is(err, filesig.ErrUnknownKey) {
		t.Errorf("without any key: %v", err)
	}
}

func TestParseKey_takes_keys_that_are_strong_enough_in_every_usual_form(t *testing.T) {
	spki := func(pub crypto.PublicKey) []byte {
		b, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := load(t, "ec.der")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, good := range map[string][]byte{"DER": der, "PEM": block, "a public key": load(t, "ec.pub")} {
		if k, err := filesig.ParseKey(good); err != nil || k.String() != key(t, "ec.der").String() {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "RSA of 1024 bits": spki(&weak.PublicKey), "P-224": spki(&small.PublicKey), "Ed25519": spki(ed),
		"a private key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "two certificates": append(slices.Clone(block), block...),
		"a byte more": append(slices.Clone(der), 0), "too long": make([]byte, filesig.MaxKey+1),
	} {
		if _, err := filesig.ParseKey(bad); err == nil {
			t.Errorf("%s is a key", name)
		}
	}
	if _, err := filesig.ParseCertificate(spki(key1(t))); err == nil {
		t.Error("a public key is a certificate")
	}
}

func key1(t *testing.T) crypto.PublicKey {
	t.Helper()
	return signer(t).Key.Public()
}

// FuzzVerify: no signature verifies over a digest that was not signed.
func FuzzVerify(f *testing.F) {
	keys := filesig.NewKeys([]*filesig.Key{key(f, "ec.der"), key(f, "rsa.der")})
	for _, n := range []string{"ec-sha256", "rsa-sha256", "rsa-sha512", "rsa-sha1"} {
		f.Add(load(f, n+".sig"))
	}
	d := sha256.Sum256([]byte("something else"))
	f.Fuzz(func(t *testing.T, sig []byte) {
		for _, alg := range []string{"sha256", "verity:sha256", "sha512", ""} {
			if _, err := filesig.Verify(sig, alg, d[:], keys); err == nil {
				t.Fatal("forged")
			}
		}
	})
}

// FuzzParseKey: what parses parses again from its DER, to the same key.
func FuzzParseKey(f *testing.F) {
	for _, n := range []string{"ec.der", "rsa.der", "skid.der", "ec.pub"} {
		f.Add(load(f, n))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := filesig.ParseKey(b)
		if err != nil {
			return
		}
		again, err := filesig.ParseKey(k.DER)
		if err != nil || again.String() != k.String() || !bytes.Equal(again.DER, k.DER) {
			t.Errorf("%v", err)
		}
	})
}

// BenchmarkVerify is one signature, by kind of key.
func BenchmarkVerify(b *testing.B) {
	d := sha256.Sum256(load(b, "file.txt"))
	for _, n := range []string{"ec", "rsa"} {
		b.Run(n, func(b *testing.B) {
			keys, sig := filesig.NewKeys([]*filesig.Key{key(b, n+".der")}), load(b, n+"-sha256.sig")
			for b.Loop() {
				if _, err := filesig.Verify(sig, "sha256", d[:], keys); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
