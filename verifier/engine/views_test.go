package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/inspect"
)

func TestViews_show_hosts_and_VMs_as_they_count_now(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		a := w.host("h1", newVM(1), newVM(2))
		w.host("h2", newVM(3))
		a.VMs[1].IMA.File("/usr/bin/odd", "odd")
		r.attest(t, attest.SchemeSEPA, a.ID())

		o, err := r.Overview(ctx, operator())
		must(t, err)
		if o.VMs[appraise.Trusted] != 1 || o.VMs[appraise.Untrusted] != 1 || o.VMs[appraise.Pending] != 1 || o.Hosts[appraise.Trusted] != 1 || o.Hosts[appraise.Pending] != 1 ||
			o.Enrolling != 0 || len(o.Replicas) != 1 || len(o.Reasons) == 0 || len(o.Failures) == 0 || o.Failures[0].Name != "vm2" {
			t.Errorf("%+v", o)
		}
		for name, c := range map[string]struct {
			f    api.MachineFilter
			want string
		}{
			"all":       {api.MachineFilter{}, "vm1 vm2 vm3"},
			"by state":  {api.MachineFilter{States: []appraise.State{appraise.Untrusted, appraise.Pending}}, "vm2 vm3"},
			"by host":   {api.MachineFilter{Host: "h1"}, "vm1 vm2"},
			"by text":   {api.MachineFilter{Text: "M3"}, "vm3"},
			"by a joke": {api.MachineFilter{Text: "%"}, ""},
		} {
			var got []string
			p := api.Page{Limit: 1}
			for {
				l, err := r.VMs(ctx, operator(), c.f, p)
				must(t, err)
				for _, v := range l.Items {
					got = append(got, v.Name)
				}
				if p.Cursor = l.Next; l.Next == "" {
					if l.Total != len(got) {
						t.Errorf("%s: %d in all, %d shown", name, l.Total, len(got))
					}
					break
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: %q", name, got)
			}
		}
		if _, err := r.VMs(ctx, operator(), api.MachineFilter{}, api.Page{Cursor: "x"}); !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInvalid) {
			t.Errorf("a made-up cursor: %v", err)
		}
		if _, err := r.VMs(ctx, operator(), api.MachineFilter{States: []appraise.State{"GREEN"}}, api.Page{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("a made-up state: %v", err)
		}
		top, err := r.Topology(ctx, operator())
		must(t, err)
		if len(top.Hosts) != 2 || len(top.Hosts[0].VMs) != 2 || !top.Hosts[0].VMs[0].Link || top.Hosts[1].VMs[0].Link {
			t.Errorf("%+v", top)
		}
		if s, err := r.Stats(ctx, operator(), 3600, 10); err != nil || len(s.Series.VMs) != 10 {
			t.Errorf("%+v %v", s, err)
		}
	})
}

func TestViews_show_a_machine_down_to_the_file_the_PCR_and_the_key(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		vm := newVM(1)
		h := w.host("h1", vm)
		for i := range 5 {
			vm.IMA.File(fmt.Sprintf("/opt/%d", i), "x")
		}
		rep := r.attest(t, attest.SchemeSEPA, h.ID())
		id := vm.UUID.String()

		all, err := r.IMAEntries(ctx, operator(), id, api.IMAFilter{Page: api.Page{Limit: 3}})
		must(t, err)
		bad, err := r.IMAEntries(ctx, operator(), id, api.IMAFilter{Bad: true})
		must(t, err)
		if all.Total != 7 || len(all.Items) != 3 || all.Items[1].Verdict != inspect.Allowed || bad.Total != 5 || bad.Items[0].Path != "/opt/0" {
			t.Errorf("%+v\n%+v", all, bad)
		}
		pcrs, err := r.PCRs(ctx, operator(), id)
		must(t, err)
		i := slices.IndexFunc(pcrs, func(p api.PCRState) bool { return p.Index == 10 })
		if len(pcrs) < 11 || pcrs[0].Verdict != inspect.OK || pcrs[i].Verdict != inspect.Replayed {
			t.Errorf("%+v", pcrs)
		}
		events, err := r.BootEvents(ctx, operator(), id)
		must(t, err)
		if len(events) == 0 || events[0].Data != "firmware" || !events[0].Matched {
			t.Errorf("%+v", events)
		}
		ident, err := r.Identity(ctx, operator(), id)
		must(t, err)
		if ident.How != howActivation || !strings.HasPrefix(ident.EKPEM, "-----BEGIN PUBLIC KEY") || !strings.HasPrefix(ident.AKPEM, "-----BEGIN PUBLIC KEY") ||
			ident.HostName != "h1" || !ident.Link.OK || ident.EKSHA256 != api.EKSHA256(vm.TPM.EKPublic()) {
			t.Errorf("%+v", ident)
		}
		list, err := r.Identities(ctx, operator(), api.Page{})
		must(t, err)
		if list.Total != 1 || list.Items[0].Name != "vm1" || list.Items[0].AKPEM != ident.AKPEM {
			t.Errorf("%+v", list)
		}
		host, err := r.Identity(ctx, operator(), h.ID())
		must(t, err)
		if host.How != "operator" || !strings.HasPrefix(host.EKPEM, "-----BEGIN PUBLIC KEY") || !host.Link.OK {
			t.Errorf("%+v", host)
		}
		reports, err := r.Reports(ctx, operator(), id, api.Page{})
		must(t, err)
		if reports.Total != 1 || reports.Items[0].ID != rep.ID || !reports.Items[0].Evidence || reports.Items[0].State != appraise.Untrusted {
			t.Errorf("%+v", reports)
		}
		if _, err := r.MachineEvidence(ctx, operator(), id); err != nil {
			t.Error(err)
		}
	})
}

func TestFollow_tells_everything_once_and_in_order_wherever_it_happens(t *testing.T) {
	w := onPostgres(t)
	a, b := w.start(), w.start()
	last, err := a.st.LastEvent(t.Context())
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan api.Event, 1000)
	done := make(chan error, 1)
	go func() {
		done <- a.Follow(ctx, operator(), api.EventFilter{After: last, Kinds: []string{api.EventVM}}, func(e api.Event) error { got <- e; return nil })
	}()
	for i := range 50 {
		r := []*replica{a, b}[i%2]
		must(t, r.st.PutEvents(t.Context(), []api.Event{{Time: time.Now(), Kind: api.EventVM, Text: fmt.Sprint(i)}, {Time: time.Now(), Kind: api.EventHost, Text: "other"}}))
	}
	before := last
	for i := range 50 {
		select {
		case e := <-got:
			if e.Text != fmt.Sprint(i) || e.ID <= before {
				t.Fatalf("%d after %d: %+v", i, before, e)
			}
			before = e.ID
		case <-time.After(10 * time.Second):
			t.Fatalf("event %d did not come", i)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAlerts_come_with_a_verdict_and_are_acknowledged(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		vm := newVM(1)
		h := w.host("h1", vm)
		vm.IMA.File("/usr/bin/odd", "odd")
		r.attest(t, attest.SchemeSEPA, h.ID())
		list, err := r.Alerts(ctx, operator(), false)
		must(t, err)
		if len(list) != 1 || list[0].Code != string(appraise.CodeIMAUnlisted) || list[0].Name != "vm1" {
			t.Fatalf("%+v", list)
		}
		got, err := r.AckAlert(ctx, operator(), list[0].ID)
		must(t, err)
		if got.AckedBy != "uid 0" || got.Acked.IsZero() {
			t.Errorf("%+v", got)
		}
		if _, err := r.AckAlert(ctx, operator(), 99); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		_, err = r.Accept(ctx, operator(), "good", api.AcceptRequest{Machine: vm.UUID.String(), All: true, Activate: true})
		must(t, err)
		w.until("the alert is closed by the re-appraisal", func() bool { l, err := r.Alerts(ctx, operator(), false); return err == nil && len(l) == 0 })
	})
}

func TestServices_without_a_database_say_that_it_is_their_fault(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	w.host("h1", newVM(1))
	r.kill()
	ctx := t.Context()
	for name, f := range map[string]func() error{
		"overview":  func() error { _, err := r.Overview(ctx, operator()); return err },
		"VMs":       func() error { _, err := r.VMs(ctx, operator(), api.MachineFilter{}, api.Page{}); return err },
		"documents": func() error { _, err := r.Documents(ctx, operator(), api.DocRIM); return err },
		"token": func() error {
			_, err := r.Authenticate(ctx, "va_"+strings.Repeat("0", 16)+"_"+strings.Repeat("A", 43))
			return err
		},
		"settings": func() error { return r.PutSettings(ctx, operator(), attest.UUID{15: 1}.String(), api.Settings{}) },
		"audit":    func() error { _, err := r.CheckAudit(ctx, operator()); return err },
		"events":   func() error { _, err := r.Events(ctx, operator(), api.EventFilter{}); return err },
	} {
		if err := f(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
