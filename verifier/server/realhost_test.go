package server_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/host/hosttest"
	"virt-attest/verifier/host/uplink"
)

// hostd's own code with real TPMs (swtpm) on the other side, in place of the simulated hosts.
func TestHostd_enrols_and_answers_with_real_TPMs(t *testing.T) {
	v := newVerifier(t)
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	up := &uplink.Uplink{Name: "real", Host: h.Machine, VMs: h.VMs, Engine: h.Engine, Domains: h.Set, Log: slog.New(slog.DiscardHandler),
		Connect: func() (uplink.Verifier, error) {
			c, err := api.NewClient("unix://"+v.conf.Listen.Unix, api.TLS{})
			if err != nil {
				return nil, err
			}
			return c, nil
		}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- up.Run(ctx) }()
	t.Cleanup(func() { cancel(); must(t, <-done) })
	var hosts []api.Host
	waitFor(t, func() bool {
		var err error
		hosts, err = v.Hosts(t.Context())
		must(t, err)
		return len(hosts) == 1
	})
	want(t, hosts[0].Result, appraise.Pending, appraise.CodeUnapproved)
	_, err := v.ApproveHost(t.Context(), hosts[0].ID, hosts[0].EKSHA256)
	must(t, err)
	for _, scheme := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
		r, err := v.Attest(t.Context(), api.AttestRequest{Host: "real", Scheme: scheme, Timeout: 20})
		must(t, err)
		if len(r.VMs) != len(vms) {
			t.Fatalf("%v: %d VMs", scheme, len(r.VMs))
		}
		for _, res := range append(r.VMs, r.Host) {
			// No reference values: everything that is proven leads to UNCONFIGURED at best. What would
			// be wrong with keys, links and quotes has other codes.
			for _, why := range res.Reasons {
				switch why.Code {
				case appraise.CodeNoReference, appraise.CodeHostNotTrusted, appraise.CodeIMAMissing:
				default:
					t.Errorf("%v: %s %s", scheme, why.Code, why.Text)
				}
			}
		}
	}
	if time.Since(hosts[0].LastSeen) > time.Minute {
		t.Errorf("last seen %v", hosts[0].LastSeen)
	}
}
