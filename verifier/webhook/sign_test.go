package webhook_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/webhook"
)

// The example of the Standard Webhooks specification's libraries.
const (
	exampleSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	exampleID     = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	exampleBody   = `{"test": 2432232314}`
	exampleSum    = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

var exampleTime = time.Unix(1614265330, 0)

func secret(t testing.TB, s string) webhook.Secret {
	t.Helper()
	out, err := webhook.ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func headers(id, at, sum string) http.Header {
	h := http.Header{}
	h.Set(webhook.HeaderID, id)
	h.Set(webhook.HeaderTimestamp, at)
	h.Set(webhook.HeaderSignature, sum)
	return h
}

func TestSign_agrees_with_other_implementations(t *testing.T) {
	s := secret(t, exampleSecret)
	if got := webhook.Sign([]webhook.Secret{s}, exampleID, exampleTime, []byte(exampleBody)); got != exampleSum {
		t.Errorf("%s", got)
	}
	if s.Reveal() != exampleSecret {
		t.Errorf("%s", s.Reveal())
	}
}

func TestVerify_accepts_what_was_signed_just_now_and_nothing_else(t *testing.T) {
	s, next := secret(t, exampleSecret), webhook.NewSecret()
	both := webhook.Sign([]webhook.Secret{next, s}, exampleID, exampleTime, []byte(exampleBody))
	at := fmt.Sprint(exampleTime.Unix())
	for name, c := range map[string]struct {
		h    http.Header
		body string
		now  time.Time
		want error
	}{
		"good":            {headers(exampleID, at, exampleSum), exampleBody, exampleTime, nil},
		"two secrets":     {headers(exampleID, at, both), exampleBody, exampleTime, nil},
		"other versions":  {headers(exampleID, at, "v1a,AAAA "+exampleSum), exampleBody, exampleTime, nil},
		"nearly too late": {headers(exampleID, at, exampleSum), exampleBody, exampleTime.Add(5 * time.Minute), nil},
		"replayed":        {headers(exampleID, at, exampleSum), exampleBody, exampleTime.Add(5*time.Minute + time.Second), webhook.ErrTime},
		"early":           {headers(exampleID, at, exampleSum), exampleBody, exampleTime.Add(-5*time.Minute - time.Second), webhook.ErrTime},
		"far future":      {headers(exampleID, "9223372036854775807", exampleSum), exampleBody, exampleTime, webhook.ErrTime},
		"another body":    {headers(exampleID, at, exampleSum), exampleBody + " ", exampleTime, webhook.ErrSignature},
		"another ID":      {headers("msg_2", at, exampleSum), exampleBody, exampleTime, webhook.ErrSignature},
		"another time":    {headers(exampleID, fmt.Sprint(exampleTime.Unix()+1), exampleSum), exampleBody, exampleTime, webhook.ErrSignature},
		"moved dot":       {headers(exampleID+"."+at, at, exampleSum), exampleBody, exampleTime, webhook.ErrHeaders},
		"unsigned":        {headers(exampleID, at, ""), exampleBody, exampleTime, webhook.ErrHeaders},
		"empty signature": {headers(exampleID, at, "v1,"), exampleBody, exampleTime, webhook.ErrSignature},
		"no time":         {headers(exampleID, "", exampleSum), exampleBody, exampleTime, webhook.ErrHeaders},
		"time with sign":  {headers(exampleID, "+"+at, exampleSum), exampleBody, exampleTime, webhook.ErrHeaders},
		"no ID":           {headers("", at, exampleSum), exampleBody, exampleTime, webhook.ErrHeaders},
		"too many":        {headers(exampleID, at, strings.Repeat("v1,AAAA ", webhook.MaxSignatures)+exampleSum), exampleBody, exampleTime, webhook.ErrSignature},
	} {
		if err := webhook.Verify(s, c.h, []byte(c.body), c.now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := webhook.Verify(webhook.Secret{}, headers(exampleID, at, exampleSum), []byte(exampleBody), exampleTime); err == nil {
		t.Error("a receiver without a secret accepts messages")
	}
}

func TestSecret_does_not_print_itself(t *testing.T) {
	s := secret(t, exampleSecret)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, v := range []any{s, &s, webhook.Endpoint{Secrets: []webhook.Secret{s}}} {
			if out := fmt.Sprintf(verb, v); strings.Contains(out, "MfKQ") || strings.Contains(out, "49 242") || strings.Contains(out, "0x31") {
				t.Errorf("%s", out)
			}
		}
	}
}

func TestParseSecret_takes_one_spelling(t *testing.T) {
	for _, bad := range []string{"", "whsec_", exampleSecret[6:], exampleSecret + "=", "whsec_AAAA", "whsec_" + strings.Repeat("A", 1000), " " + exampleSecret, exampleSecret + "\n"} {
		if _, err := webhook.ParseSecret(bad); err == nil || len(bad) > 10 && strings.Contains(err.Error(), bad[6:]) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	made := webhook.NewSecret()
	if again := secret(t, made.Reveal()); again.Reveal() != made.Reveal() {
		t.Error("a new secret cannot be read again")
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(exampleID, "1614265330", exampleSum, []byte(exampleBody))
	f.Add("", "-1", "v1, v1,", []byte{})
	f.Fuzz(func(t *testing.T, id, at, sum string, body []byte) {
		err := webhook.Verify(secret(t, exampleSecret), headers(id, at, sum), body, exampleTime)
		if err == nil && (id != exampleID || string(body) != exampleBody) {
			t.Fatal("a signature was forged")
		}
	})
}
