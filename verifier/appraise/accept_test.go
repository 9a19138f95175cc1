package appraise_test

import (
	"strings"
	"testing"

	"virt-attest/internal/measuretest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

// accept makes reference values that allow what a verdict complains about, as an operator would.
func accept(t *testing.T, f *rim.File, reasons []appraise.Reason) *rim.File {
	t.Helper()
	var items []rim.Accepted
	for _, r := range reasons {
		a, ok := r.Accepted()
		if !ok {
			t.Fatalf("%+v cannot be accepted", r)
		}
		items = append(items, a)
	}
	out, err := rim.Accept(f, items)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAccepted_findings_are_gone_from_the_next_verdict(t *testing.T) {
	w := newWorld(t)
	var file *rim.File
	w.edit(func(s *appraise.Subject) {
		s.RIMs = rim.Set{goldenRIM(t, newBox(), "g", func(f *rim.File) { file = f })}
	})
	w.vm.firmware()
	w.vm.boot.Event(4, measuretest.EvEFIAction, []byte("another boot loader"))
	w.vm.ima.Boot()
	w.vm.ima.File("/usr/bin/bash", "a new version")
	w.vm.ima.File("/opt/\xffnew", "new")
	w.vm.ima.Violation("/var/log/wtmp")
	r := w.expect(untrusted, appraise.CodePCRMismatch, appraise.CodeIMADigest, appraise.CodeIMAUnlisted, appraise.CodeIMAViolation)
	x, err := rim.NewIndex(accept(t, file, r.Reasons))
	if err != nil {
		t.Fatal(err)
	}
	w.edit(func(s *appraise.Subject) { s.RIMs = rim.Set{x} })
	w.expect(trusted)
	w.vm.ima.File("/opt/evil", "evil")
	w.expect(untrusted, appraise.CodeIMAUnlisted)
}

func TestAccepted_offers_nothing_that_reference_values_cannot_allow(t *testing.T) {
	w := newWorld(t)
	w.vm.firmware()
	w.vm.ima.Digest("boot_aggregate", make([]byte, 32))
	w.vm.ima.Entry("home-made", []byte("x"))
	w.vm.ima.File("/"+strings.Repeat("x", 5000), "a path that is not known whole")
	w.edit(func(s *appraise.Subject) { s.Policy.MinFirmware = 1 })
	r := w.round().VMs[0].Result
	if len(r.Reasons) != 4 {
		t.Errorf("%s", texts(r))
	}
	for _, x := range r.Reasons {
		if a, ok := x.Accepted(); ok {
			t.Errorf("%s offers %+v", x.Text, a)
		}
	}
	w = newWorld(t)
	w.edit(func(s *appraise.Subject) {
		s.RIMs = rim.Set{goldenRIM(t, newBox(), "x", func(f *rim.File) { f.Exclude = []string{"/var/**"} })}
	})
	w.vm.ima.File("/var/a", "1")
	for _, n := range w.expect(trusted).Notes {
		if _, ok := n.Accepted(); ok {
			t.Errorf("a note about a glob can be accepted: %+v", n)
		}
	}
	if _, ok := (appraise.Reason{Code: appraise.CodePCRMismatch, PCR: new(uint8), Digest: "sha256:00"}).Accepted(); ok {
		t.Error("half a PCR value")
	}
}
