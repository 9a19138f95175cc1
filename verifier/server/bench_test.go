package server_test

import (
	"fmt"
	"testing"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// One attestation through the whole Verifier, with the simulated host's quotes in it: HTTP, database
// on disk, verification, appraisal. A VM has a log of two entries and none of them is new.
func BenchmarkAttest(b *testing.B) {
	for _, c := range []struct {
		scheme attest.Scheme
		vms    int
	}{{attest.SchemeHost, 0}, {attest.SchemeSEPA, 1}, {attest.SchemeSEPA, 50}, {attest.SchemeHYPA, 1}, {attest.SchemeHYPA, 50}} {
		b.Run(fmt.Sprintf("%v/vms=%d", c.scheme, c.vms), func(b *testing.B) {
			v := newVerifier(b)
			var vms []*vm
			for i := range c.vms {
				vms = append(vms, newVM(byte(i+1)))
			}
			v.host("host1", vms...)
			v.attest(c.scheme, "host1") // enrols
			for b.Loop() {
				r, err := v.Attest(b.Context(), api.AttestRequest{Host: "host1", Scheme: c.scheme, Timeout: 30})
				if err != nil || r.Host.State != "TRUSTED" || len(r.VMs) != c.vms {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(max(c.vms, 1)), "µs/VM")
		})
	}
}
