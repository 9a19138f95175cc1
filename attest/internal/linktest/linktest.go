// Package linktest has what the tests of the schemes share.
package linktest

import (
	"errors"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/internal/softhost"
)

// Verify is a scheme's check of Evidence.
type Verify func(ev *attest.Evidence, want *attest.Challenge, now time.Time) (*link.Linked, error)

// Linked checks an answer to its own challenge, which must be one.
func (f Verify) Linked(t testing.TB, ev *attest.Evidence) *link.Linked {
	t.Helper()
	l, err := f(ev, &ev.Challenge, softhost.Now)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// WantKind demands an error of a kind.
func WantKind(t testing.TB, err error, kind link.Kind) {
	t.Helper()
	if !errors.Is(err, &link.Error{Kind: kind}) {
		t.Errorf("got error %v, want one of kind %q", err, kind)
	}
}
