package uplink_test

import (
	"context"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host/hosttest"
	"virt-attest/verifier/host/uplink"
)

func TestRun_attests_by_the_schedule_that_the_Verifier_gives_and_changes(t *testing.T) {
	h := hosttest.New(t)
	h.StartVMs(t, 1)
	v := newVerifier(t, h.Dir)
	v.schedule = &api.Schedule{Interval: time.Second, Jitter: 0.1, Scheme: attest.SchemeSEPA}
	v.start()
	connect(t, h, v)
	for i := range 3 {
		select {
		case err := <-v.results:
			if err != nil {
				t.Fatalf("scheduled attestation %d: %v", i, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("scheduled attestation %d never came", i)
		}
	}
	v.do(func() { v.schedule = &api.Schedule{} })
	v.queue <- *h.Challenge(t, attest.SchemeHost) // the poll ends and brings the new schedule
	time.Sleep(1500 * time.Millisecond)
	var before, after int
	v.do(func() { before = v.pulled })
	time.Sleep(2500 * time.Millisecond)
	v.do(func() { after = v.pulled })
	if after != before {
		t.Errorf("%d attestations after the schedule was taken away", after-before)
	}
}

// CVE-2026-6420 and attack 6 the other way round: what a Verifier says is bounded, too.
func TestRun_takes_no_schedule_that_would_make_it_busy(t *testing.T) {
	h := hosttest.New(t)
	v := newVerifier(t, h.Dir)
	v.schedule = &api.Schedule{Interval: time.Microsecond, Scheme: attest.SchemeHost}
	v.start()
	connect(t, h, v)
	if err := v.ask(h.Challenge(t, attest.SchemeHost)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	var pulled int
	v.do(func() { pulled = v.pulled })
	if pulled != 0 {
		t.Errorf("%d attestations", pulled)
	}
}

func TestRun_shows_its_enrolment_token(t *testing.T) {
	h := hosttest.New(t)
	v := newVerifier(t, h.Dir)
	v.start()
	u := &uplink.Uplink{
		Name: "kvm1", Host: h.Machine, VMs: h.VMs, Engine: h.Engine, Domains: h.Set, Log: quiet(),
		Token:   func() (string, error) { return "secret", nil },
		Connect: func() (uplink.Verifier, error) { return api.NewClient("unix://"+v.path, api.TLS{}) },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	eventually(t, "hello with the token", func() (ok bool) { v.do(func() { ok = v.hello.Token == "secret" }); return ok })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
