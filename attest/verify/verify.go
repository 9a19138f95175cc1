// Package verify takes an Evidence of any scheme to the package that verifies it.
package verify

import (
	"time"

	"virt-attest/attest"
	"virt-attest/attest/hypa"
	"virt-attest/attest/link"
	"virt-attest/attest/sepa"
)

// Evidence verifies ev, the answer to want, by want's scheme: sepa.Verify, hypa.Verify or
// link.Alone. What they say about whose keys these are holds here too: the caller decides.
func Evidence(ev *attest.Evidence, want *attest.Challenge, now time.Time) (*link.Linked, error) {
	if want == nil {
		return nil, link.Errorf(link.KindMalformed, "no challenge to verify an answer against")
	}
	switch want.Scheme {
	case attest.SchemeSEPA, attest.SchemeSEPAExact:
		return sepa.Verify(ev, want, now)
	case attest.SchemeHYPA:
		return hypa.Verify(ev, want, now)
	case attest.SchemeHost:
		return link.Alone(ev, want, now)
	}
	return nil, link.Errorf(link.KindMalformed, "the challenge is of an unknown scheme, %v", want.Scheme)
}
