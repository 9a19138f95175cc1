package engine

import (
	"errors"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func TestSuspend_takes_a_machine_out_of_the_schedule_and_never_makes_it_better(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		one, two := newVM(1), newVM(2)
		h := w.host("h1", one, two)
		r.attest(t, attest.SchemeSEPA, "")
		_, err := r.Suspend(ctx, operator(), one.UUID.String(), api.SuspendRequest{Reason: "update", Seconds: 3600})
		must(t, err)
		ch, err := r.Challenge(ctx, "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA})
		must(t, err)
		if len(ch.VMs) != 1 || ch.VMs[0] != two.UUID {
			t.Errorf("the schedule asks for %v", ch.VMs)
		}
		v, err := r.VM(ctx, operator(), "vm1")
		must(t, err)
		if v.Result.State != appraise.Trusted || len(v.Result.Notes) == 0 || v.Result.Notes[len(v.Result.Notes)-1].Code != appraise.CodeSuspended {
			t.Errorf("while its verdict counts: %+v", v.Result)
		}
		row, err := r.oneRow(ctx, operator(), "vm1", "")
		must(t, err)
		asleep, err := r.st.Suspensions(ctx, []string{row.UUID}, time.Now())
		must(t, err)
		late, err := shownVM(operator(), row, asleep, row.Result.Expires)
		must(t, err)
		if late.Result.State != appraise.Stale || late.Result.Reasons[0].Code != appraise.CodeSuspended || !strings.Contains(late.Result.Reasons[0].Text, "uid 0") || !strings.Contains(late.Result.Reasons[0].Text, "update") {
			t.Errorf("when it has expired: %+v", late.Result)
		}
		s, err := r.Settings(ctx, operator(), one.UUID.String())
		must(t, err)
		if s.Suspended == nil || s.Suspended.Reason != "update" {
			t.Errorf("%+v", s)
		}
		must(t, r.PutSettings(ctx, operator(), one.UUID.String(), api.Settings{RIMs: s.RIMs})) // which does not resume it
		_, err = r.Suspend(ctx, operator(), two.UUID.String(), api.SuspendRequest{})
		must(t, err)
		if ch, err = r.Challenge(ctx, "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA}); err != nil || ch.Scheme != attest.SchemeHost {
			t.Errorf("with all VMs suspended: %+v, %v", ch, err)
		}
		must(t, r.Resume(ctx, operator(), one.UUID.String()))
		must(t, r.Resume(ctx, operator(), two.UUID.String()))
		if err := r.Resume(ctx, operator(), two.UUID.String()); !errors.Is(err, ErrConflict) {
			t.Errorf("resumed twice: %v", err)
		}
		if ch, err = r.Challenge(ctx, "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA}); err != nil || len(ch.VMs) != 0 {
			t.Errorf("resumed: %+v, %v", ch, err)
		}
		_, err = r.Suspend(ctx, operator(), h.ID(), api.SuspendRequest{})
		must(t, err)
		if _, err = r.Challenge(ctx, "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA}); !errors.Is(err, ErrConflict) {
			t.Errorf("a host that is suspended asks: %v", err)
		}
		if s, _ := r.schedule(ctx, h.ID()); s == nil || s.Interval != 0 {
			t.Errorf("its schedule: %+v", s)
		}
	})
}

func TestSuspend_refuses_what_makes_no_sense(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	vm := newVM(1)
	w.host("h1", vm)
	for name, test := range map[string]struct {
		who  api.Caller
		id   string
		r    api.SuspendRequest
		want error
	}{
		"for ever and a day":    {operator(), vm.UUID.String(), api.SuspendRequest{Seconds: 1e12}, ErrInvalid},
		"back in time":          {operator(), vm.UUID.String(), api.SuspendRequest{Seconds: -1}, ErrInvalid},
		"two lines":             {operator(), vm.UUID.String(), api.SuspendRequest{Reason: "a\nb"}, ErrInvalid},
		"a machine of nobody":   {operator(), newVM(9).UUID.String(), api.SuspendRequest{}, ErrNotFound},
		"no machine":            {operator(), "vm1", api.SuspendRequest{}, ErrInvalid},
		"a tenant's own choice": {api.Caller{Name: "t", Role: api.RoleOperator, Tenant: "red"}, vm.UUID.String(), api.SuspendRequest{}, ErrForbidden},
	} {
		if _, err := r.Suspend(t.Context(), test.who, test.id, test.r); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
