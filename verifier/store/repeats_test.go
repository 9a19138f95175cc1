package store

import (
	"testing"
	"time"

	"virt-attest/attest"
)

func TestPutChallengeOnce_frees_its_ID_when_the_time_is_over(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		put := func(n byte, at time.Time) Repeat {
			c := &attest.Challenge{Nonce: attest.Nonce{n}, Scheme: attest.SchemeSEPA, Host: "h1", NotAfter: at.Add(time.Minute).Unix()}
			got, err := s.PutChallengeOnce(t.Context(), &OpenChallenge{Challenge: c, AskedBy: "me", Created: at},
				Repeat{ID: "a", Digest: "d", Nonce: c.Nonce, Created: at, Until: at.Add(10 * time.Minute)})
			must(t, err)
			return got
		}
		if a, b := put(1, t0), put(2, t0.Add(9*time.Minute)); a.Nonce != b.Nonce || !a.Created.Equal(b.Created) {
			t.Errorf("%+v and %+v", a, b)
		}
		_, err := s.Challenge(t.Context(), attest.Nonce{2})
		is(t, "the challenge of what came again", err, ErrNotFound)
		if c := put(3, t0.Add(10*time.Minute)); c.Nonce != (attest.Nonce{3}) {
			t.Errorf("ten minutes later: %+v", c)
		}
		if _, ok, err := s.Repeated(t.Context(), "a", t0.Add(20*time.Minute)); ok || err != nil {
			t.Errorf("remembered for longer: %v", err)
		}
		must(t, s.Prune(t.Context(), Retention{Reports: 1, Evidence: 1, Age: time.Hour}, t0.Add(48*time.Hour)))
		if _, ok, err := s.Repeated(t.Context(), "a", t0); ok || err != nil {
			t.Errorf("still on record: %v", err)
		}
	})
}
