package simhost

import (
	"slices"
	"testing"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Want holds a result against a state and the codes of its reasons, and shows what it is.
func Want(t testing.TB, r appraise.Result, state appraise.State, codes ...appraise.Code) {
	t.Helper()
	var got []appraise.Code
	text := ""
	for _, x := range r.Reasons {
		got = append(got, x.Code)
		text += "\n  " + x.Text
	}
	if r.State != state || !slices.Equal(got, codes) {
		t.Errorf("%q is %s because of %v, want %s because of %v%s", r.Name, r.State, got, state, codes, text)
	}
}

// Must ends the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// EveryScheme asks for reports of a host with vm1, vm2 and vm3 by every scheme; all is well with them.
func EveryScheme(t testing.TB, ask func(s attest.Scheme, vms ...string) *api.Report) {
	t.Helper()
	for _, c := range []struct {
		scheme attest.Scheme
		vms    []string
		n      int
	}{
		{attest.SchemeHost, nil, 0}, {attest.SchemeSEPA, nil, 3}, {attest.SchemeSEPA, []string{"vm2"}, 1}, {attest.SchemeHYPA, nil, 3},
		{attest.SchemeHYPA, []string{"vm1", "vm3", "vm1"}, 2}, {attest.SchemeSEPAExact, []string{"vm1"}, 1},
	} {
		r := ask(c.scheme, c.vms...)
		Want(t, r.Host, appraise.Trusted)
		if len(r.VMs) != c.n || len(r.Steps) < 4 {
			t.Errorf("%v: %d VMs, steps %+v", c.scheme, len(r.VMs), r.Steps)
		}
		for _, vm := range r.VMs {
			Want(t, vm, appraise.Trusted)
		}
	}
}

// Concurrently asks twelve times at once, by two schemes, for vm1 of one host and vm2 of another; all is well with them.
func Concurrently(t testing.TB, ask func(i int, r api.AttestRequest) (*api.Report, error)) {
	t.Helper()
	done := make(chan *api.Report)
	for i := range 12 {
		go func() {
			r, err := ask(i, api.AttestRequest{VMs: []string{[]string{"vm1", "vm2"}[i/2%2]},
				Scheme: []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA}[i/6], Timeout: 20})
			if err != nil {
				t.Error(err)
			}
			done <- r
		}()
	}
	for range 12 {
		if r := <-done; r != nil {
			Want(t, r.VMs[0], appraise.Trusted)
			Want(t, r.Host, appraise.Trusted)
		}
	}
}
