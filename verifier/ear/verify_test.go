package ear_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"virt-attest/attest"
	"virt-attest/verifier/ear"
)

func kindOf(t *testing.T, err error) ear.Kind {
	t.Helper()
	var e *ear.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is not a refusal", err)
	}
	return e.Kind
}

// Attack 57: a result is replayed, shown to somebody else, or shown after its time.
func TestVerify_refuses_a_token_for_another_question(t *testing.T) {
	in := about()
	in.Nonce, in.Audience = "nonce-0001", "scheduler"
	k := keys(t)
	token, err := issuer.Token(k, in, now)
	if err != nil {
		t.Fatal(err)
	}
	good := ear.Expect{Subject: vm1.String(), Now: now, Nonce: "nonce-0001", Audience: "scheduler", Issuer: "https://verifier.example"}
	for name, c := range map[string]struct {
		change func(e *ear.Expect)
		want   ear.Kind
	}{
		"nothing wrong":      {func(*ear.Expect) {}, ""},
		"no nonce wanted":    {func(e *ear.Expect) { e.Nonce = "" }, ""},
		"any issuer":         {func(e *ear.Expect) { e.Issuer = "" }, ""},
		"within the leeway":  {func(e *ear.Expect) { e.Now = now.Add(5*time.Minute + 59*time.Second) }, ""},
		"a clock behind":     {func(e *ear.Expect) { e.Now = now.Add(-time.Minute) }, ""},
		"replayed":           {func(e *ear.Expect) { e.Nonce = "nonce-0002" }, ear.KindNonce},
		"another's":          {func(e *ear.Expect) { e.Audience = "tenant" }, ear.KindAudience},
		"somebody's":         {func(e *ear.Expect) { e.Audience = "" }, ear.KindAudience},
		"another VM's":       {func(e *ear.Expect) { e.Subject = attest.UUID{9}.String() }, ear.KindSubject},
		"the host's":         {func(e *ear.Expect) { e.Subject = hostID }, ear.KindSubject},
		"another Verifier's": {func(e *ear.Expect) { e.Issuer = "https://else.example" }, ear.KindIssuer},
		"expired":            {func(e *ear.Expect) { e.Now = now.Add(6 * time.Minute) }, ear.KindExpired},
		"too old":            {func(e *ear.Expect) { e.Now, e.MaxAge = now.Add(2*time.Minute), 30*time.Second }, ear.KindExpired},
		"from the future":    {func(e *ear.Expect) { e.Now = now.Add(-61 * time.Second) }, ear.KindEarly},
	} {
		want := good
		c.change(&want)
		r, err := ear.Verify(token, k.Public(), want)
		if c.want == "" {
			if err != nil || !r.Trusted() {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if r != nil || kindOf(t, err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ear.Verify(token, k.Public(), ear.Expect{Now: now}); err == nil {
		t.Error("nobody said which machine is meant")
	}
}

// resigned signs other claims and another header with the Verifier's own key.
func resigned(t *testing.T, typ string, change func(c map[string]any)) string {
	t.Helper()
	k := keys(t)
	in := about()
	token, err := issuer.Token(k, in, now)
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payloadOf(t, token), &claims); err != nil {
		t.Fatal(err)
	}
	change(claims)
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	out, err := k.Sign(typ, payload, now)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func payloadOf(t *testing.T, token string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func vmPart(c map[string]any) map[string]any {
	return c["submods"].(map[string]any)["vm"].(map[string]any)
}

func TestVerify_refuses_claims_that_contradict_each_other(t *testing.T) {
	for name, c := range map[string]struct {
		typ    string
		change func(c map[string]any)
		want   ear.Kind
	}{
		"another type":          {"virt-attest-audit", func(map[string]any) {}, ear.KindType},
		"another profile":       {ear.TokenType, func(c map[string]any) { c["eat_profile"] = "tag:github.com,2023:veraison/ear" }, ear.KindProfile},
		"no time":               {ear.TokenType, func(c map[string]any) { delete(c, "exp") }, ear.KindMalformed},
		"for ever":              {ear.TokenType, func(c map[string]any) { c["exp"] = now.AddDate(1, 0, 0).Unix() }, ear.KindMalformed},
		"at the end of time":    {ear.TokenType, func(c map[string]any) { c["exp"] = int64(1) << 62; c["iat"] = 1<<62 - 1 }, ear.KindMalformed},
		"parts missing":         {ear.TokenType, func(c map[string]any) { delete(c["submods"].(map[string]any), "link") }, ear.KindMalformed},
		"no parts":              {ear.TokenType, func(c map[string]any) { c["submods"] = map[string]any{} }, ear.KindMalformed},
		"a part more":           {ear.TokenType, func(c map[string]any) { c["submods"].(map[string]any)["x"] = vmPart(c) }, ear.KindMalformed},
		"a part worse":          {ear.TokenType, func(c map[string]any) { vmPart(c)["ear_status"] = "contraindicated" }, ear.KindMalformed},
		"a word nobody knows":   {ear.TokenType, func(c map[string]any) { c["ear_status"] = "fine" }, ear.KindMalformed},
		"a claim worse":         {ear.TokenType, func(c map[string]any) { vmPart(c)["ear_trustworthiness_vector"] = map[string]any{"executables": 33} }, ear.KindMalformed},
		"no claims":             {ear.TokenType, func(c map[string]any) { delete(vmPart(c), "ear_trustworthiness_vector") }, ear.KindMalformed},
		"a claim out of range":  {ear.TokenType, func(c map[string]any) { vmPart(c)["ear_trustworthiness_vector"] = map[string]any{"executables": 258} }, ear.KindMalformed},
		"a state that is worse": {ear.TokenType, func(c map[string]any) { vmPart(c)["org.virt_attest"].(map[string]any)["state"] = "STALE" }, ear.KindMalformed},
		"another machine":       {ear.TokenType, func(c map[string]any) { vmPart(c)["org.virt_attest"].(map[string]any)["machine"] = "x" }, ear.KindMalformed},
	} {
		r, err := ear.Verify(resigned(t, c.typ, c.change), keys(t).Public(), expect())
		if r != nil || kindOf(t, err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	twice := resigned(t, ear.TokenType, func(map[string]any) {})
	payload := strings.Replace(string(payloadOf(t, twice)), `{`, `{"ear_status":"none",`, 1)
	token, err := keys(t).Sign(ear.TokenType, []byte(payload), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ear.Verify(token, keys(t).Public(), expect()); kindOf(t, err) != ear.KindMalformed {
		t.Errorf("a claim twice: %v", err)
	}
}

func TestVerify_refuses_other_algorithms_and_other_keys(t *testing.T) {
	k := keys(t)
	token, err := issuer.Token(k, about(), now)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	head := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer := func(alg jose.SignatureAlgorithm, key any) string {
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		j, err := s.Sign(payloadOf(t, token))
		if err != nil {
			t.Fatal(err)
		}
		out, err := j.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	stranger, err := ear.NewKey(now)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := issuer.Token(newKeys(t, stranger), about(), now)
	if err != nil {
		t.Fatal(err)
	}
	flipped := parts[2][:10] + string(parts[2][10]^1) + parts[2][11:]
	jwks, err := k.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		want  ear.Kind
	}{
		"unsigned":            {head(`{"alg":"none"}`) + "." + parts[1] + ".", ear.KindAlgorithm},
		"HMAC by the key set": {signer(jose.HS256, jwks), ear.KindAlgorithm},
		"RSA":                 {signer(jose.RS256, rsaKey), ear.KindAlgorithm},
		"a stranger's key":    {foreign, ear.KindUnknownKey},
		"a key in the header": {signer(jose.ES256, jose.JSONWebKey{Key: stranger.Private}), ear.KindUnknownKey},
		"changed":             {parts[0] + "." + parts[1] + "." + flipped, ear.KindSignature},
		"empty":               {"", ear.KindMalformed},
		"half":                {parts[0] + "." + parts[1], ear.KindMalformed},
		"huge":                {strings.Repeat("a", ear.MaxToken+1), ear.KindMalformed},
	} {
		r, err := ear.Verify(c.token, k.Public(), expect())
		if r != nil || kindOf(t, err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	k := keys(f)
	in := about()
	in.Nonce = "nonce-0001"
	for _, i := range []ear.Input{in, {Host: in.Host}} {
		token, err := issuer.Token(k, i, now)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token, true)
		f.Add(strings.Replace(token, ".", "..", 1), true)
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(payload), false)
	}
	f.Add(`{"eat_profile":"tag:ietf.org,2026:rats/ear#04","sub":"x","submods":{"host":{}}}`, false)
	set := k.Public()
	f.Fuzz(func(t *testing.T, s string, whole bool) {
		token := s
		if !whole { // claims that the Verifier itself has signed
			var err error
			if token, err = k.Sign(ear.TokenType, []byte(s), now); err != nil {
				t.Fatal(err)
			}
		}
		r, err := ear.Verify(token, set, expect())
		if (r == nil) == (err == nil) {
			t.Fatalf("%v and %v", r, err)
		}
		if r.Trusted() {
			for name, p := range r.Parts {
				if p.Status != ear.Affirming {
					t.Fatalf("trusted, and %s is %s", name, p.Status)
				}
			}
		}
	})
}

func FuzzParseJWKS(f *testing.F) {
	jwks, err := keys(f).JWKS()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(jwks)
	f.Add([]byte(`{"keys":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		set, err := ear.ParseJWKS(b)
		if (set == nil) == (err == nil) {
			t.Fatalf("%v and %v", set, err)
		}
	})
}
