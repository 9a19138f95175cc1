package verify_test

import (
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/verify"
	"virt-attest/internal/softhost"
)

func TestEvidence_verifies_every_scheme_by_its_own_rules(t *testing.T) {
	h := softhost.New("good", 1)
	for _, s := range []attest.Scheme{attest.SchemeHost, attest.SchemeSEPA, attest.SchemeHYPA, attest.SchemeSEPAExact} {
		c := h.Challenge(s)
		if s == attest.SchemeSEPAExact {
			c = h.Challenge(s, h.VMs[0])
		}
		ev := h.Answer(c)
		l, err := verify.Evidence(ev, c, softhost.Now)
		if err != nil || l.Err() != nil || l.Scheme != s {
			t.Errorf("%v: %+v, %v", s, l, err)
		}
		for _, other := range []attest.Scheme{attest.SchemeHost, attest.SchemeSEPA, attest.SchemeHYPA, attest.SchemeSEPAExact, 0, 99} {
			want := *c
			want.Scheme = other
			if l, err := verify.Evidence(ev, &want, softhost.Now); other != s && (err == nil || l != nil) {
				t.Errorf("an answer by %v passes for one by %v", s, other)
			}
		}
	}
	if _, err := verify.Evidence(nil, nil, softhost.Now); err == nil {
		t.Error("nothing was verified")
	}
	if _, err := verify.Evidence(nil, h.Challenge(attest.SchemeHYPA), softhost.Now); err == nil {
		t.Error("no evidence was verified")
	}
}
