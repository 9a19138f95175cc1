package measurement_test

import (
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
)

func TestTry(t *testing.T) {
	for _, n := range measuretest.Names() {
		m := measuretest.Load(n)
		p, err := measurement.Replay(m.IMA, measurement.State{}, m.PCRs, measurement.Options{AllowPadded: true, CheckDigests: n != "xx"})
		if err != nil {
			t.Errorf("%s: %v", n, err)
			continue
		}
		t.Logf("%s: %d %v tail %d", n, p.State.Count, p.Padded, p.Tail)
		for e := range p.Entries() {
			t.Log(e.Index, string(e.Template), e.Violation, e.Parsed, e.DigestText(), e.PathText())
			if e.IsBootAggregate() {
				a, _ := attest.ParseAlg(string(e.DigestAlg))
				t.Logf("%x", measurement.BootAggregate(m.PCRs, a))
			}
		}
	}
}
