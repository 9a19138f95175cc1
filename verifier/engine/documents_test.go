package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/store"
)

// rimWith gives reference values of a good machine, changed.
func rimWith(t testing.TB, name string, change func(*rim.File)) []byte {
	t.Helper()
	f, err := rim.Decode(newBox().Golden(t, name))
	must(t, err)
	change(f)
	b, err := f.Encode()
	must(t, err)
	return b
}

// job waits for a job's end.
func (w *world) job(r *replica, j *api.Job) *api.Job {
	w.t.Helper()
	var got *api.Job
	w.until("job "+j.Kind+" ends", func() bool {
		var err error
		got, err = r.Job(w.t.Context(), operator(), j.ID)
		return err == nil && !got.Finished.IsZero()
	})
	if got.State != "done" {
		w.t.Fatalf("job %s: %s", got.State, got.Error)
	}
	return got
}

func (w *world) vmState(r *replica, vm string) appraise.State {
	w.t.Helper()
	v, err := r.VM(w.t.Context(), operator(), vm)
	must(w.t, err)
	return v.Result.State
}

func (w *world) put(r *replica, k api.DocKind, name string, content []byte, activate bool) *api.DocVersion {
	w.t.Helper()
	v, err := r.PutDocument(w.t.Context(), operator(), k, name, api.DocPut{Content: content, Activate: activate, Note: "test"})
	must(w.t, err)
	return v
}

func TestDocuments_have_versions_that_can_be_compared_activated_and_rolled_back(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		a := rimWith(t, "web", func(*rim.File) {})
		b := rimWith(t, "web", func(f *rim.File) {
			f.IMA["/usr/bin/new"] = []string{"sha256:" + strings.Repeat("ab", 32)}
		})
		if v := w.put(r, api.DocRIM, "web", a, true); v.Version != 1 || !v.Active || v.Author != "uid 0" {
			t.Errorf("%+v", v)
		}
		if v := w.put(r, api.DocRIM, "web", b, false); v.Version != 2 || v.Active {
			t.Errorf("%+v", v)
		}
		if v := w.put(r, api.DocRIM, "web", b, false); v.Version != 2 {
			t.Errorf("the same content is another version: %+v", v)
		}
		diff, err := r.DocDiff(ctx, operator(), api.DocRIM, "web", 1, 2)
		must(t, err)
		if len(diff) != 1 || diff[0].Op != "add" || diff[0].What != "ima /usr/bin/new" {
			t.Errorf("%+v", diff)
		}
		for _, n := range []int{2, 1} { // on and back
			j, err := r.Activate(ctx, operator(), api.DocRIM, "web", n)
			must(t, err)
			w.job(r, j)
			got, v, err := r.Document(ctx, operator(), api.DocRIM, "web", 0)
			must(t, err)
			if want := map[int][]byte{1: a, 2: b}[n]; v.Version != n || !bytes.Equal(got, want) {
				t.Errorf("version %d is active, not %d, or its content is not as stored", v.Version, n)
			}
		}
		if _, err := r.Activate(ctx, operator(), api.DocRIM, "web", 3); !errors.Is(err, ErrNotFound) {
			t.Errorf("version 3: %v", err)
		}
		must(t, r.DeleteDocument(ctx, operator(), api.DocRIM, "web"))
		if _, err := r.DocVersions(ctx, operator(), api.DocRIM, "web"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestDocuments_that_are_in_use_or_built_in_cannot_be_deleted(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		ctx := t.Context()
		w.host("h1", newVM(1))
		if err := r.DeleteDocument(ctx, operator(), api.DocRIM, "good"); !errors.Is(err, ErrConflict) {
			t.Errorf("in use: %v", err)
		}
		for _, name := range []string{store.DefaultHostPolicy, store.DefaultVMPolicy} {
			if err := r.DeleteDocument(ctx, operator(), api.DocPolicy, name); !errors.Is(err, ErrConflict) {
				t.Errorf("%s: %v", name, err)
			}
			if _, v, err := r.Document(ctx, operator(), api.DocPolicy, name, 0); err != nil || v.Version != 1 {
				t.Errorf("%s: %+v, %v", name, v, err)
			}
		}
		f := policy.Default(policy.KindVM)
		f.Description = "another"
		b, err := f.Encode()
		must(t, err)
		if v := w.put(r, api.DocPolicy, store.DefaultVMPolicy, b, true); v.Version != 2 || !v.Active {
			t.Errorf("%+v", v)
		}
	})
}

func TestPutDocument_refuses_what_nothing_could_be_judged_by(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	for name, c := range map[string]struct {
		kind    api.DocKind
		name    string
		content string
	}{
		"no JSON":           {api.DocRIM, "a", "x"},
		"another name":      {api.DocRIM, "b", string(rimWith(t, "a", func(*rim.File) {}))},
		"another kind":      {api.DocPolicy, "a", string(rimWith(t, "a", func(*rim.File) {}))},
		"no kind":           {"x", "a", "{}"},
		"a name with a way": {api.DocRIM, "../a", "{}"},
	} {
		if _, err := r.PutDocument(t.Context(), operator(), c.kind, c.name, api.DocPut{Content: []byte(c.content)}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tight is a policy that no simulated machine satisfies.
func tight(t testing.TB, name string) []byte {
	t.Helper()
	f := policy.Default(policy.KindVM)
	f.Name = name
	f.Software = map[string]string{"agent": "99"}
	b, err := f.Encode()
	must(t, err)
	return b
}

func TestActivate_makes_what_was_green_PENDING_at_once_and_then_what_the_new_document_says(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		vm := newVM(1)
		h := w.host("h1", vm)
		report := r.attest(t, attest.SchemeSEPA, h.ID())
		if w.vmState(r, "vm1") != appraise.Trusted {
			t.Fatalf("%+v", report)
		}
		before, err := r.VM(t.Context(), operator(), "vm1")
		must(t, err)
		// What everybody sees between the change and the end of the re-appraisal.
		_, err = r.st.PutVersion(t.Context(), store.NewVersion{Kind: api.DocPolicy, Name: store.DefaultVMPolicy, SHA256: sha256Hex(tight(t, store.DefaultVMPolicy)),
			Data: tight(t, store.DefaultVMPolicy), Created: time.Now(), Activate: true}, store.Trail{})
		must(t, err)
		if s := w.vmState(r, "vm1"); s != appraise.Pending {
			t.Errorf("between: %s", s)
		}
		l, err := r.VMs(t.Context(), operator(), api.MachineFilter{States: []appraise.State{appraise.Pending}}, api.Page{})
		must(t, err)
		if l.Total != 1 {
			t.Errorf("%d VMs are PENDING by the list", l.Total)
		}
		j, err := r.reappraise(t.Context(), operator(), "test")
		must(t, err)
		if got := w.job(r, j); got.Done != 1 {
			t.Errorf("%+v", got)
		}
		after, err := r.VM(t.Context(), operator(), "vm1")
		must(t, err)
		if after.Result.State != appraise.Untrusted || !after.Result.Time.Equal(before.Result.Time) || after.Result.Expires.After(before.Result.Expires) || after.Result.Report != before.Result.Report {
			t.Errorf("%+v\nwas\n%+v", after.Result, before.Result)
		}
		if hr, err := r.Host(t.Context(), operator(), "h1"); err != nil || hr.Result.State != appraise.Trusted {
			t.Errorf("the host, which has another policy: %+v %v", hr, err)
		}
		// Back again, and the next answer goes on where the last one was.
		j, err = r.Activate(t.Context(), operator(), api.DocPolicy, store.DefaultVMPolicy, 1)
		must(t, err)
		w.job(r, j)
		if s := w.vmState(r, "vm1"); s != appraise.Trusted {
			t.Errorf("rolled back: %s", s)
		}
		vm.IMA.File("/usr/bin/init", "init")
		if rep := r.attest(t, attest.SchemeSEPA, h.ID()); rep.VMs[0].State != appraise.Trusted {
			t.Errorf("%+v", rep.VMs[0])
		}
	})
}

func TestActivate_of_reference_values_judges_the_whole_log_and_the_next_increment_goes_on(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		vm := newVM(1)
		h := w.host("h1", vm)
		r.attest(t, attest.SchemeSEPA, h.ID())
		vm.IMA.File("/usr/bin/odd", "odd")
		if rep := r.attest(t, attest.SchemeSEPA, h.ID()); rep.VMs[0].State != appraise.Untrusted {
			t.Fatalf("%+v", rep.VMs[0])
		}
		entries, err := r.IMAEntries(t.Context(), operator(), vm.UUID.String(), api.IMAFilter{Bad: true})
		must(t, err)
		if len(entries.Items) != 1 || entries.Items[0].Path != "/usr/bin/odd" || entries.Items[0].Verdict != "unlisted" {
			t.Errorf("%+v", entries.Items)
		}
		acc, err := r.Accept(t.Context(), operator(), "good", api.AcceptRequest{Machine: vm.UUID.String(), All: true, Activate: true})
		must(t, err)
		if acc.Version.Version != 2 || len(acc.Changes) != 1 || acc.Changes[0].What != "ima /usr/bin/odd" {
			t.Errorf("%+v", acc)
		}
		w.until("the VM is TRUSTED by the accepted reference values", func() bool { return w.vmState(r, "vm1") == appraise.Trusted })
		rec, err := r.st.Machine(t.Context(), vm.UUID.String())
		must(t, err)
		if m := r.decodeMachine(rec); len(m.Findings) != 0 {
			t.Errorf("findings are left: %+v", m.Findings)
		}
		vm.IMA.File("/usr/bin/odd", "odd again")
		if rep := r.attest(t, attest.SchemeSEPA, h.ID()); rep.VMs[0].State != appraise.Untrusted || rep.VMs[0].Entries != rec.Entries+1 {
			t.Errorf("%+v", rep.VMs[0])
		}
	})
}

func TestActivate_that_heals_the_host_heals_its_VMs(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		vm := newVM(1)
		h := w.host("h1", vm)
		r.attest(t, attest.SchemeSEPA, h.ID()) // the VM's keys are on record
		h.IMA.File("/usr/bin/odd", "odd")
		if rep := r.attest(t, attest.SchemeSEPA, h.ID()); rep.Host.State != appraise.Untrusted || rep.VMs[0].State != appraise.Untrusted {
			t.Fatalf("%+v", rep)
		}
		_, err := r.Accept(t.Context(), operator(), "good", api.AcceptRequest{Machine: h.ID(), All: true, Activate: true})
		must(t, err)
		w.until("both are TRUSTED", func() bool {
			x, err := r.Host(t.Context(), operator(), "h1")
			return err == nil && x.Result.State == appraise.Trusted && w.vmState(r, "vm1") == appraise.Trusted
		})
	})
}

func TestReappraisal_never_moves_a_machine_back_or_forth(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	vm := newVM(1)
	h := w.host("h1", vm)
	r.attest(t, attest.SchemeSEPA, h.ID())
	vm.TPM.Clock = 1 // an earlier state of the machine was brought back
	if rep := r.attest(t, attest.SchemeSEPA, h.ID()); rep.VMs[0].State != appraise.Rollback {
		t.Fatalf("%+v", rep.VMs[0])
	}
	before, err := r.st.Machine(t.Context(), vm.UUID.String())
	must(t, err)
	w.put(r, api.DocRIM, "good", rimWith(t, "good", func(f *rim.File) { f.Description = "v2" }), true)
	w.until("nothing is outdated any more", func() bool { n, err := r.st.CountOutdated(t.Context()); return err == nil && n == 0 })
	after, err := r.st.Machine(t.Context(), vm.UUID.String())
	must(t, err)
	if s := w.vmState(r, "vm1"); s != appraise.Rollback || !bytes.Equal(before.State, after.State) {
		t.Errorf("%s, and its state was touched: %v", s, !bytes.Equal(before.State, after.State))
	}
}

func TestImpact_says_whose_verdict_would_change_and_changes_none(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		vms := []*vm{newVM(1), newVM(2)}
		h := w.host("h1", vms...)
		vms[1].IMA.File("/usr/bin/odd", "odd")
		r.attest(t, attest.SchemeSEPA, h.ID())
		w.assign((attest.UUID{15: 9}).String(), "good") // never attested
		r.settled(w)
		v := w.put(r, api.DocRIM, "good", rimWith(t, "good", func(f *rim.File) { f.Exclude = []string{"/usr/bin/odd"}; f.IMA = map[string][]string{} }), false)
		j, err := r.Impact(t.Context(), operator(), api.DocRIM, "good", v.Version)
		must(t, err)
		var got api.Impact
		must(t, json.Unmarshal(w.job(r, j).Result, &got))
		if got.Machines != 4 || got.Judged != 3 || len(got.Changes) != 3 || got.Version != 2 {
			t.Fatalf("%+v", got)
		}
		i := slices.IndexFunc(got.Changes, func(c api.ImpactMachine) bool { return c.Name == "vm1" })
		if i < 0 || got.Changes[i].Now != appraise.Trusted || got.Changes[i].Then != appraise.Untrusted || len(got.Changes[i].Reasons) == 0 {
			t.Errorf("%+v", got.Changes)
		}
		if s := w.vmState(r, "vm1"); s != appraise.Trusted {
			t.Errorf("an impact has changed a verdict: %s", s)
		}
	})
}

// settled waits until nothing is outdated.
func (r *replica) settled(w *world) {
	w.t.Helper()
	j, err := r.reappraise(w.t.Context(), operator(), "test")
	must(w.t, err)
	w.job(r, j)
}

func TestReappraisal_goes_on_at_another_replica_when_one_is_killed(t *testing.T) {
	if testing.Short() {
		t.Log("the other replica waits for a minute and a half before it takes over")
	}
	w := onPostgres(t)
	a := w.start()
	var hosts []*host
	for i := range byte(20) {
		hosts = append(hosts, w.host("h"+string('a'+rune(i)), newVM(i+1)))
	}
	for _, h := range hosts {
		a.attest(t, attest.SchemeSEPA, h.ID())
	}
	f := policy.Default(policy.KindVM)
	f.Description = "v2"
	c, err := f.Encode()
	must(t, err)
	w.put(a, api.DocPolicy, store.DefaultVMPolicy, c, true)
	a.kill()
	b := w.start()
	must(t, b.jobs.Add(t.Context(), taskReappraise, "")) // the sweep, as it comes every few minutes
	w.until("all are judged again", func() bool { n, err := b.st.CountOutdated(t.Context()); return err == nil && n == 0 })
	l, err := b.VMs(t.Context(), operator(), api.MachineFilter{States: []appraise.State{appraise.Trusted}}, api.Page{})
	must(t, err)
	if l.Total != len(hosts) {
		t.Errorf("%d of %d VMs are TRUSTED", l.Total, len(hosts))
	}
}

func TestReverify_finds_the_documents_that_a_report_was_made_with(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		vm := newVM(1)
		h := w.host("h1", vm)
		rep := r.attest(t, attest.SchemeSEPA, h.ID())
		w.put(r, api.DocPolicy, store.DefaultVMPolicy, tight(t, store.DefaultVMPolicy), true)
		vm.IMA.File("/usr/bin/odd", "odd")
		later := r.attest(t, attest.SchemeSEPA, h.ID())
		for name, x := range map[string]*api.Report{"before": rep, "after": later} {
			got, err := r.Reverify(t.Context(), operator(), x.ID)
			must(t, err)
			if !got.Same || len(got.Difference) != 0 || got.Now.VMs[0].State != x.VMs[0].State {
				t.Errorf("%s: %+v", name, got.Difference)
			}
		}
	})
}

func TestVerify_judges_what_the_caller_brings_by_the_keys_that_the_caller_names(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	vm := newVM(1)
	h := w.host("h1", vm)
	rep := r.attest(t, attest.SchemeSEPA, h.ID())
	b, err := r.ReportEvidence(t.Context(), operator(), rep.ID)
	must(t, err)
	rims := map[string][]string{h.ID(): {"good"}, vm.UUID.String(): {"good"}}
	got, err := r.Verify(t.Context(), operator(), api.VerifyRequest{Evidence: b, Anchors: api.VerifyAnchors{Enrolled: true}, RIMs: rims})
	must(t, err)
	if got.Host.State != appraise.Trusted || got.VMs[0].State != appraise.Trusted {
		t.Errorf("%+v", got)
	}
	got, err = r.Verify(t.Context(), operator(), api.VerifyRequest{Evidence: b, RIMs: rims})
	must(t, err)
	if got.VMs[0].State == appraise.Trusted {
		t.Error("trusted by no keys at all")
	}
	if _, err := r.Verify(t.Context(), operator(), api.VerifyRequest{Evidence: []byte("x")}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
