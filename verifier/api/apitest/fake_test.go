package apitest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/appraise"
)

func TestFake_has_machines_in_every_state_and_keeps_tenants_apart(t *testing.T) {
	f := apitest.New(time.Unix(1790000000, 0))
	o, err := f.Overview(t.Context(), api.Caller{})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, s := range []appraise.State{appraise.Trusted, appraise.Untrusted, appraise.Stale, appraise.Pending, appraise.Unconfigured, appraise.Unreachable, appraise.Rollback, appraise.Error} {
		if o.VMs[s] == 0 {
			t.Errorf("no VM is %s", s)
		}
		sum += o.VMs[s]
	}
	if sum != 30 {
		t.Errorf("%d VMs", sum)
	}
	red, err := f.VMs(t.Context(), api.Caller{Tenant: apitest.Red}, api.MachineFilter{}, api.Page{})
	if err != nil || red.Total != 10 {
		t.Errorf("%+v %v", red, err)
	}
	if _, err := f.VM(t.Context(), api.Caller{Tenant: apitest.Blue}, red.Items[0].Name); !api.IsStatus(err, 404) {
		t.Error(err)
	}
}

func TestFake_follows_what_is_emitted(t *testing.T) {
	f := apitest.New(time.Unix(1790000000, 0))
	all, err := f.Events(t.Context(), api.Caller{}, api.EventFilter{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	enough := errors.New("enough")
	last := all[len(all)-1].ID
	go func() {
		for range 3 {
			f.Emit(api.Event{Kind: api.EventReplica})
		}
	}()
	want := last + 1
	err = f.Follow(ctx, api.Caller{}, api.EventFilter{After: last}, func(e api.Event) error {
		if e.ID != want {
			t.Errorf("%d, want %d", e.ID, want)
		}
		if want++; want == last+4 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}
