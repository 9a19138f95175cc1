package appraise

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/filesig"
	"virt-attest/internal/measuretest"
)

// A guest can write any number of signatures into its log; each costs the Verifier more than its digest.
func TestSigned_stops_verifying_where_the_work_would_have_no_end(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := measuretest.NewSigner(key)
	k, err := filesig.ParseCertificate(s.Cert)
	if err != nil {
		t.Fatal(err)
	}
	l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	l.Signed("/a", "a", nil)
	l.Signed("/a", "a", s.Sign("a"))
	l.Signed("/a", "a", s.Sign("another"))
	l.Signed("/a", "a", s.Sign("a"))
	l.Signed("/a", "a", nil)
	c := &check{signers: signers{mode: SignaturesAccept, keys: filesig.NewKeys([]*filesig.Key{k}), left: 2}}
	want := []error{filesig.ErrNone, nil, filesig.ErrBad, errManySignatures, filesig.ErrNone}
	for e := range measurement.Entries(l.Segment("b")) {
		if got := c.signed(e); !errors.Is(got, want[e.Index]) {
			t.Errorf("entry %d: %v, want %v", e.Index, got, want[e.Index])
		}
	}
}
