package ear_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	veraison "github.com/veraison/ear"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/ear"
)

var update = flag.Bool("update", false, "write the golden tokens anew")

func examples() map[string]ear.Input {
	trusted := about()
	trusted.Nonce, trusted.Audience = "nonce-0001", "scheduler"
	return map[string]ear.Input{
		"trusted":        trusted,
		"host":           {Host: trusted.Host},
		"unlisted":       about(appraise.Reason{Code: appraise.CodeIMAUnlisted, Layer: appraise.LayerVM, Text: "/usr/bin/evil is not listed"}),
		"relay":          about(reason(appraise.CodeLinkHash, appraise.LayerLink)),
		"host-untrusted": about(reason(appraise.CodeIMADigest, appraise.LayerHost), reason(appraise.CodeHostNotTrusted, appraise.LayerHost)),
		"error":          about(reason(appraise.CodeInternal, appraise.LayerVerifier)),
		"never-attested": about(reason(appraise.CodeNeverAttested, appraise.LayerVM)),
	}
}

// The claims, byte for byte, as relying parties see them.
func TestToken_has_the_golden_claims(t *testing.T) {
	for name, in := range examples() {
		token, err := issuer.Token(keys(t), in, now)
		if err != nil {
			t.Fatal(err)
		}
		var claims map[string]any
		if err := json.Unmarshal(payloadOf(t, token), &claims); err != nil {
			t.Fatal(err)
		}
		if id, _ := claims["jti"].(string); len(id) < 26 {
			t.Errorf("%s: jti %q", name, id)
		}
		claims["jti"] = "random"
		got, err := json.MarshalIndent(claims, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".json", append(got, '\n'))
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// A token of an earlier build, which a relying party may still hold.
func TestVerify_reads_the_golden_token(t *testing.T) {
	file := filepath.Join("testdata", "token.jwt")
	if *update {
		token, err := issuer.Token(keys(t), examples()["trusted"], now)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(token+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := expect()
	want.Audience, want.Nonce = "scheduler", "nonce-0001"
	r, err := ear.Verify(strings.TrimSpace(string(token)), keys(t).Public(), want)
	if err != nil || !r.Trusted() || r.Parts[ear.PartVM].Details.Scheme != attest.SchemeSEPA {
		t.Errorf("%v, %+v", err, r)
	}
}

// Another implementation checks the signature by the published keys, and reads the appraisals. It speaks the
// names of an earlier draft, so those are put in; values and structure stay.
func TestToken_is_understood_by_another_implementation(t *testing.T) {
	for name, in := range examples() {
		k := keys(t)
		token, err := issuer.Token(k, in, now)
		if err != nil {
			t.Fatal(err)
		}
		jwks, err := k.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		set, err := jwk.Parse(jwks)
		if err != nil {
			t.Fatal(err)
		}
		payload, err := jws.Verify([]byte(token), jws.WithKeySet(set))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		older, err := k.Sign("JWT", earlierNames(t, payload), now)
		if err != nil {
			t.Fatal(err)
		}
		key, ok := set.Key(0)
		if !ok {
			t.Fatal("no key")
		}
		var theirs veraison.AttestationResult
		if err := theirs.Verify([]byte(older), jwa.ES256(), key); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ours := checked(t, in)
		if len(theirs.Submods) != len(ours.Parts) {
			t.Errorf("%s: %d parts", name, len(theirs.Submods))
		}
		for part, a := range theirs.Submods {
			if a.Status.String() != string(ours.Parts[part].Status) {
				t.Errorf("%s: %s is %s there and %s here", name, part, a.Status, ours.Parts[part].Status)
			}
			vector := a.TrustVector.AsMap()
			for claim, v := range ours.Parts[part].Vector {
				if int8(vector[string(claim)]) != v || vector[string(claim)].GetTier().String() != string(ear.TierOf(v)) {
					t.Errorf("%s: %s %s is %d there and %d here", name, part, claim, vector[string(claim)], v)
				}
			}
		}
	}
}

func earlierNames(t *testing.T, payload []byte) []byte {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	rename := func(m map[string]any, from, to string) {
		m[to] = m[from]
		delete(m, from)
	}
	c["eat_profile"] = veraison.EatProfile
	for _, gone := range []string{"exp", "nbf", "iss", "aud", "sub", "jti", "ear_status"} { // our clock is not theirs
		delete(c, gone)
	}
	rename(c, "ear_verifier_id", "ear.verifier-id")
	for _, p := range c["submods"].(map[string]any) {
		part := p.(map[string]any)
		rename(part, "ear_status", "ear.status")
		rename(part, "ear_trustworthiness_vector", "ear.trustworthiness-vector")
		if ids, ok := part["ear_appraisal_policy_ids"].([]any); ok {
			part["ear.appraisal-policy-id"] = ids[0]
		}
		delete(part, "ear_appraisal_policy_ids")
		delete(part, "org.virt_attest")
	}
	out, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
