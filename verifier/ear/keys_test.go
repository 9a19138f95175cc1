package ear_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/ear"
)

// A year of rotation: nobody who fetches the key set once a day ever meets a key that is not in it.
func TestRotate_publishes_a_key_before_it_signs_and_keeps_it_while_its_tokens_live(t *testing.T) {
	var list []ear.Key
	rotation := ear.Rotation{Period: 10 * 24 * time.Hour}
	var cached *ear.KeySet
	used := map[string]bool{}
	type held struct {
		token string
		until time.Time
	}
	var tokens []held
	long := issuer
	long.Lifetime = ear.MaxLifetime
	for h := range 24 * 90 {
		at := now.Add(time.Duration(h) * time.Hour)
		var err error
		if list, _, err = ear.Rotate(list, rotation, at); err != nil {
			t.Fatal(err)
		}
		if len(list) > 3 {
			t.Fatalf("%d keys at hour %d", len(list), h)
		}
		k := newKeys(t, list...)
		if h%24 == 0 {
			cached = k.Public()
		}
		in := about()
		in.Host.Result.Expires, in.VM.Result.Expires = at.Add(48*time.Hour), at.Add(48*time.Hour)
		token, err := long.Token(k, in, at)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, held{token, at.Add(ear.MaxLifetime)})
		want := expect()
		want.Now = at
		if _, err := ear.Verify(token, cached, want); err != nil {
			t.Fatalf("hour %d, with the set of this morning: %v", h, err)
		}
		for len(tokens) > 0 && !tokens[0].until.After(at) {
			tokens = tokens[1:]
		}
		if _, err := ear.Verify(tokens[0].token, k.Public(), want); err != nil {
			t.Fatalf("hour %d, the oldest token that lives: %v", h, err)
		}
		for _, key := range list {
			used[key.ID] = true
		}
	}
	if len(used) < 9 || len(used) > 11 {
		t.Errorf("%d keys in 90 days of 10 each", len(used))
	}
}

func TestRotate_makes_a_key_once_and_says_which_one_is_new(t *testing.T) {
	all, fresh, err := ear.Rotate(nil, ear.Rotation{}, now)
	if err != nil || len(all) != 1 || len(fresh) != 1 || all[0].ID != fresh[0].ID || all[0].From.After(now) {
		t.Fatalf("%v, %v, %v", all, fresh, err)
	}
	again, fresh, err := ear.Rotate(all, ear.Rotation{}, now.Add(time.Hour))
	if err != nil || len(again) != 1 || len(fresh) != 0 {
		t.Fatalf("%v, %v, %v", again, fresh, err)
	}
	// The Verifier was away for a year: the old key signs until the new one was published long enough.
	late := now.AddDate(1, 0, 0)
	all, fresh, err = ear.Rotate(all, ear.Rotation{}, late)
	if err != nil || len(all) != 2 || len(fresh) != 1 || !fresh[0].From.Equal(late.Add(48*time.Hour)) {
		t.Fatalf("%v, %v, %v", all, fresh, err)
	}
}

// What an operator does after a theft: the key goes, and the Verifier must not stand still until the next.
func TestRotate_replaces_a_key_that_was_removed_at_once(t *testing.T) {
	all, _, err := ear.Rotate(nil, ear.Rotation{}, now)
	if err != nil {
		t.Fatal(err)
	}
	later := now.Add(29 * 24 * time.Hour)
	if all, _, err = ear.Rotate(all, ear.Rotation{}, later); err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	all, fresh, err := ear.Rotate(all[1:], ear.Rotation{}, later)
	if err != nil || len(all) != 2 || len(fresh) != 1 || fresh[0].ID != all[0].ID {
		t.Fatalf("%v, %v, %v", all, fresh, err)
	}
	if _, err := newKeys(t, all...).Sign("x", nil, later); err != nil {
		t.Error(err)
	}
}

func TestKeys_sign_with_none_before_its_time(t *testing.T) {
	k, err := ear.NewKey(now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newKeys(t, k).Sign("x", nil, now); !errors.Is(err, ear.ErrNoKey) {
		t.Errorf("%v", err)
	}
}

func TestParseKey_reads_what_a_store_kept_and_nothing_else(t *testing.T) {
	k, err := ear.NewKey(now)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ear.ParseKey(kept, now); err != nil || got.ID != k.ID || !got.Private.Equal(k.Private) {
		t.Errorf("%v, %v", got, err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing":       nil,
		"two keys":      append(bytes.Clone(kept), kept...),
		"another type":  bytes.ReplaceAll(kept, []byte("PRIVATE"), []byte("PUBLIC")),
		"another curve": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"cut":           pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der[:20]}),
		"huge":          bytes.Repeat([]byte("a"), ear.MaxKeyPEM+1),
	} {
		if _, err := ear.ParseKey(bad, now); err == nil || strings.Contains(err.Error(), "asn1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJWKS_holds_public_keys_only(t *testing.T) {
	k := keys(t)
	jwks, err := k.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(jwks), `"d"`) {
		t.Fatal("a private key is published")
	}
	token, err := issuer.Token(k, about(), now)
	if err != nil {
		t.Fatal(err)
	}
	set, err := ear.ParseJWKS(jwks)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ear.Verify(token, set, expect()); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]string{
		"none":             `{"keys":[]}`,
		"another name":     strings.Replace(string(jwks), `"kid":"`, `"kid":"x`, 1),
		"another use":      strings.Replace(string(jwks), `"sig"`, `"enc"`, 1),
		"no algorithm":     strings.Replace(string(jwks), `"ES256"`, `""`, 1),
		"off the curve":    strings.Replace(string(jwks), `"x":"`, `"x":"A`, 1),
		"something after":  string(jwks) + "{}",
		"a symmetric key":  `{"keys":[{"kty":"oct","k":"AAAA","alg":"ES256","use":"sig","kid":"x"}]}`,
		"more than enough": `{"keys":[` + strings.Repeat(`{},`, 40) + `{}]}`,
		"huge":             strings.Repeat(" ", ear.MaxJWKS+1),
	} {
		if set, err := ear.ParseJWKS([]byte(bad)); err == nil || set != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
