package verdicts_test

import (
	"slices"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/host/verdicts"
)

var (
	vm1 = attest.UUID{1}
	vm2 = attest.UUID{2}
	now = time.Unix(1_700_000_000, 0)
)

func trusted(vm attest.UUID, epoch uint64) api.HostVerdict {
	return api.HostVerdict{Machine: vm.String(), State: appraise.Trusted, Epoch: epoch, Report: "aa", EAR: "e.a.r", Expires: now.Add(time.Minute).UnixMilli()}
}

func board() (*verdicts.Board, *time.Time) {
	at := now
	return &verdicts.Board{Now: func() time.Time { return at }}, &at
}

func TestBoard_does_not_show_TRUSTED_after_its_time_even_without_a_Verifier(t *testing.T) {
	b, at := board()
	b.Update(&api.Poll{Begin: true, Verdicts: []api.HostVerdict{trusted(vm1, 3)}})
	v, ok := b.Latest(vm1)
	if !ok || !v.Trusted(3) || v.EAR == "" {
		t.Fatalf("%+v", v)
	}
	if v.Trusted(4) || v.Trusted(0) {
		t.Error("a verdict on another run of the VM counts")
	}
	*at = now.Add(time.Minute)
	if v, _ := b.Latest(vm1); v.State != appraise.Stale || v.EAR != "" || v.Trusted(3) || v.Reasons[0].Code != appraise.CodeExpired {
		t.Errorf("%+v", v)
	}
}

func TestBoard_forgets_what_a_Verifier_that_begins_anew_does_not_name(t *testing.T) {
	b, _ := board()
	b.Update(&api.Poll{Begin: true, Verdicts: []api.HostVerdict{trusted(vm1, 1), trusted(vm2, 1)}})
	b.Update(&api.Poll{Begin: true, More: true, Verdicts: []api.HostVerdict{trusted(vm2, 2)}})
	if _, ok := b.Latest(vm1); !ok {
		t.Error("forgotten before all was told")
	}
	b.Update(&api.Poll{})
	if _, ok := b.Latest(vm1); ok {
		t.Error("still there")
	}
	if v, _ := b.Latest(vm2); !v.Trusted(2) {
		t.Errorf("%+v", v)
	}
	b.Update(&api.Poll{Verdicts: []api.HostVerdict{{Machine: vm2.String()}}})
	if _, ok := b.Latest(vm2); ok {
		t.Error("one that the Verifier has no more is there")
	}
}

func TestBoard_leaves_out_what_is_malformed(t *testing.T) {
	b, _ := board()
	long := trusted(vm1, 1)
	long.Reasons = []api.HostReason{{Text: string(make([]byte, api.MaxReasonText+1))}}
	odd := trusted(vm2, 1)
	odd.State = "GOOD"
	b.Update(&api.Poll{Begin: true, Verdicts: []api.HostVerdict{long, odd}})
	for _, vm := range []attest.UUID{vm1, vm2} {
		if v, ok := b.Latest(vm); ok {
			t.Errorf("%+v", v)
		}
	}
}

func TestSubscription_tells_each_machine_once_and_misses_none(t *testing.T) {
	b, _ := board()
	b.Update(&api.Poll{Begin: true, Verdicts: []api.HostVerdict{trusted(vm1, 1)}})
	s := b.Subscribe()
	defer s.Close()
	take := func(want ...attest.UUID) {
		t.Helper()
		select {
		case <-s.Changed():
		default:
			t.Fatal("not told")
		}
		var names []string
		for _, u := range want {
			names = append(names, u.String())
		}
		if got := s.Take(); !slices.Equal(got, names) {
			t.Errorf("%v, want %v", got, names)
		}
	}
	take(vm1)
	for i := range uint64(3) {
		b.Update(&api.Poll{Verdicts: []api.HostVerdict{trusted(vm2, i+1), trusted(vm1, i+1)}})
	}
	take(vm1, vm2)
	select {
	case <-s.Changed():
		t.Error("told of nothing")
	default:
	}
}
