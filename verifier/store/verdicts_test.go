package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// told gives events as "who: before→state" and what else they are.
func told(t *testing.T, s *Store, f api.EventFilter) (all []string) {
	t.Helper()
	events, err := s.Events(t.Context(), f, "")
	must(t, err)
	for _, e := range events {
		text := e.Machine
		if e.Kind == api.EventVerdict {
			text += fmt.Sprintf(": %s→%s", e.Before, e.State)
		} else {
			text += " " + e.Text
		}
		all = append(all, text)
	}
	return all
}

func verdict(n byte, at time.Time, vm appraise.State, code appraise.Code) *Outcome {
	o := outcome(n, at)
	for _, r := range []*appraise.Result{&o.Report.Host, &o.Report.VMs[0]} {
		r.Time, r.Expires, r.Reasons = at, at.Add(10*time.Minute), []appraise.Reason{}
	}
	if r := &o.Report.VMs[0]; vm != appraise.Trusted {
		r.State, r.Reasons = vm, []appraise.Reason{{Code: code, Text: fmt.Sprintf("at %v", at)}}
	}
	return o
}

func TestCommit_tells_of_verdicts_that_are_different_and_of_no_others(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), []Claim{{UUID: vm1, Host: "h1", Name: "web"}}, ""))
		minute := func(n byte) time.Time { return t0.Add(time.Duration(n) * time.Minute) }
		must(t, s.Commit(t.Context(), verdict(1, minute(1), appraise.Trusted, "")))
		must(t, s.Commit(t.Context(), verdict(2, minute(2), appraise.Trusted, "")))
		must(t, s.Commit(t.Context(), verdict(3, minute(3), appraise.Untrusted, appraise.CodeIMADigest)))
		must(t, s.Commit(t.Context(), verdict(4, minute(4), appraise.Untrusted, appraise.CodeIMADigest))) // other words, same reason
		must(t, s.Commit(t.Context(), verdict(5, minute(2), appraise.Trusted, "")))                       // an answer that was overtaken
		must(t, s.Commit(t.Context(), verdict(6, minute(5), appraise.Untrusted, appraise.CodeIMAUnlisted)))
		got := told(t, s, api.EventFilter{Kinds: []string{api.EventVerdict}})
		want := []string{vm1.String() + ": →TRUSTED", "h1: →TRUSTED", vm1.String() + ": TRUSTED→UNTRUSTED", vm1.String() + ": UNTRUSTED→UNTRUSTED"}
		if !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		rows, err := s.VMsOf(t.Context(), "web", "", minute(5))
		must(t, err)
		if r := rows[0]; len(rows) != 1 || r.Result.Report != "06" || !r.Result.Time.Equal(minute(5)) || !r.Since.Equal(minute(5)) {
			t.Errorf("%+v", rows)
		}
	})
}

func TestLapsed_tells_once_that_a_verdict_has_run_out(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		must(t, s.Commit(t.Context(), verdict(1, t0, appraise.Trusted, "")))
		for i, want := range []int{0, 2, 0} {
			n, err := s.Lapsed(t.Context(), t0.Add(time.Duration(i*11)*time.Minute), 10)
			if err != nil || n != want {
				t.Errorf("%d lapsed, want %d, %v", n, want, err)
			}
		}
		must(t, s.Commit(t.Context(), verdict(2, t0.Add(time.Hour), appraise.Trusted, "")))
		got := told(t, s, api.EventFilter{Kinds: []string{api.EventVerdict}, Machine: vm1.String()})
		if !slices.Equal(got, []string{vm1.String() + ": →TRUSTED", vm1.String() + ": TRUSTED→STALE", vm1.String() + ": STALE→TRUSTED"}) {
			t.Errorf("%q", got)
		}
		n, err := s.Lapsed(t.Context(), t0.Add(2*time.Hour), 10)
		if err != nil || n != 2 {
			t.Errorf("%d lapsed again, %v", n, err)
		}
	})
}

func TestAlerts_open_once_and_close_when_their_cause_is_gone(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		must(t, s.PutSettings(t.Context(), vm1.String(), api.Settings{Tenant: "blue"}, Trail{}))
		bad := func(n byte) *Outcome {
			o := verdict(n, t0.Add(time.Duration(n)*time.Minute), appraise.Untrusted, appraise.CodeIMADigest)
			o.Alerts = []api.Alert{{Code: "ima-digest", Machine: vm1.String(), Text: "a file is different"}, {Code: "ima-digest", Machine: "someone else", Text: "no"}}
			return o
		}
		must(t, s.RaiseAlert(t.Context(), api.Alert{Code: "host-lost", Machine: "h1", Host: "h1", Text: "gone"}, t0))
		must(t, s.Commit(t.Context(), bad(1)))
		must(t, s.Commit(t.Context(), bad(2)))
		list, err := s.Alerts(t.Context(), "blue", false)
		must(t, err)
		if len(list) != 1 || list[0].Count != 2 || list[0].Tenant != "blue" || list[0].Host != "h1" || list[0].State != appraise.Untrusted || !list[0].Opened.Equal(t0.Add(time.Minute)) {
			t.Fatalf("%+v", list)
		}
		_, err = s.AckAlert(t.Context(), list[0].ID, "red", "alice", t0, Trail{})
		is(t, "another tenant's alert", err, ErrNotFound)
		a, err := s.AckAlert(t.Context(), list[0].ID, "blue", "alice", t0, Trail{Audit: &api.AuditEntry{Time: t0, Actor: "alice", Action: "alert.ack"}})
		must(t, err)
		if a.AckedBy != "alice" || !a.Acked.Equal(t0) {
			t.Errorf("%+v", a)
		}
		must(t, s.Commit(t.Context(), verdict(3, t0.Add(3*time.Minute), appraise.Trusted, "")))
		list, err = s.Alerts(t.Context(), "", false)
		must(t, err)
		if len(list) != 1 || list[0].Code != "host-lost" {
			t.Errorf("a verdict closed what is not about verdicts, or did not close its own: %+v", list)
		}
		must(t, s.CloseAlert(t.Context(), "h1", "host-lost", t0))
		must(t, s.Commit(t.Context(), bad(4)))
		list, err = s.Alerts(t.Context(), "", true)
		must(t, err)
		if len(list) != 3 || !list[0].Closed.IsZero() || list[1].Closed.IsZero() || list[1].AckedBy != "alice" || list[0].Count != 1 {
			t.Errorf("%+v", list)
		}
		got := strings.Join(told(t, s, api.EventFilter{Kinds: []string{api.EventAlert}, Machine: vm1.String()}), "\n")
		for _, w := range []string{"raised", "acknowledged by alice", "closed"} {
			if !strings.Contains(got, w) {
				t.Errorf("nobody was told that it was %s: %s", w, got)
			}
		}
	})
}

func TestActivate_outdates_what_was_appraised_before_and_nothing_else(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		version := func(kind api.DocKind, name, sha string) {
			_, err := s.PutVersion(t.Context(), NewVersion{Kind: kind, Name: name, SHA256: sha, Data: []byte(sha), Created: t0, Activate: true}, Trail{})
			must(t, err)
		}
		version(api.DocRIM, "debian", "01")
		must(t, s.PutSettings(t.Context(), vm1.String(), api.Settings{RIMs: []string{"debian"}}, Trail{}))
		at := t0
		commit := func(n byte) int64 {
			subjects, g, err := s.Subjects(t.Context(), []string{"h1", vm1.String()})
			must(t, err)
			if c := subjects[vm1.String()]; len(c.RIMs) != 1 || c.RIMs[0].Name != "debian" || c.Policy.Name != DefaultVMPolicy || subjects["h1"].Policy.Name != DefaultHostPolicy {
				t.Errorf("%+v", subjects)
			}
			o := verdict(n, at, appraise.Trusted, "")
			o.Generation = g
			must(t, s.Commit(t.Context(), o))
			return g
		}
		states := func(what, want string) {
			t.Helper()
			vms, err := s.VMPage(t.Context(), api.MachineFilter{}, "", api.Page{}, at)
			must(t, err)
			hosts, err := s.HostPage(t.Context(), api.MachineFilter{}, "", api.Page{}, at)
			must(t, err)
			if got := fmt.Sprint(hosts.Items[0].State, " ", vms.Items[0].State); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		must(t, s.ApproveHost(t.Context(), "h1", ByOperator, Trail{}))
		old := commit(1)
		states("at first", "TRUSTED TRUSTED")
		version(api.DocRIM, "debian", "02")
		states("other reference values", "TRUSTED PENDING")
		late := verdict(2, at, appraise.Trusted, "") // was under way
		late.Generation = old
		must(t, s.Commit(t.Context(), late))
		states("an appraisal by those before", "TRUSTED PENDING")
		commit(3)
		states("appraised again", "TRUSTED TRUSTED")
		version(api.DocRIM, "debian", "02")
		states("the same version again", "TRUSTED TRUSTED")
		version(api.DocPolicy, DefaultHostPolicy, "03")
		states("another policy for hosts", "PENDING PENDING")
		commit(4)
		version(api.DocPolicy, DefaultVMPolicy, "04")
		states("another policy for VMs", "TRUSTED PENDING")
		version(api.DocPolicy, "strict", "05")
		commit(5)
		must(t, s.PutSettings(t.Context(), vm1.String(), api.Settings{RIMs: []string{"debian"}, Tenant: "blue"}, Trail{}))
		states("another tenant", "TRUSTED TRUSTED")
		must(t, s.PutSettings(t.Context(), vm1.String(), api.Settings{RIMs: []string{"debian"}, Policy: "strict"}, Trail{}))
		states("another policy of its own", "TRUSTED PENDING")
		is(t, "a policy in use", s.DeleteDocument(t.Context(), api.DocPolicy, "strict", Trail{}), ErrConflict)
		versions, err := s.Versions(t.Context(), api.DocRIM, "debian")
		must(t, err)
		if len(versions) != 2 || versions[0].Version != 2 || !versions[0].Active || versions[1].Active {
			t.Errorf("%+v", versions)
		}
		_, err = s.Activate(t.Context(), api.DocRIM, "debian", 9, t0, Trail{})
		is(t, "a version that is not there", err, ErrNotFound)
	})
}

func TestRejudge_counts_only_while_its_report_is_the_newest(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		must(t, s.Commit(t.Context(), verdict(1, t0, appraise.Trusted, "")))
		again := verdict(1, t0, appraise.Untrusted, appraise.CodeIMADigest).Report.VMs
		must(t, s.Rejudge(t.Context(), Again{Host: "h1", Results: again, Generation: 2, Now: t0.Add(time.Second)}))
		must(t, s.Commit(t.Context(), verdict(2, t0.Add(time.Minute), appraise.Trusted, "")))
		must(t, s.Rejudge(t.Context(), Again{Host: "h1", Results: again, Generation: 2, Now: t0.Add(2 * time.Minute)}))
		got := told(t, s, api.EventFilter{Machine: vm1.String()})
		if want := vm1.String() + ": "; !slices.Equal(got, []string{want + "→TRUSTED", want + "TRUSTED→UNTRUSTED", want + "UNTRUSTED→TRUSTED"}) {
			t.Errorf("%q", got)
		}
	})
}

func TestTrail_is_there_with_its_change_or_not_at_all(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		by := func(what string) Trail {
			return Trail{Audit: &api.AuditEntry{Time: t0, Actor: "alice", Action: what}, Events: []api.Event{{Time: t0, Kind: api.EventHost, Text: what}}}
		}
		is(t, "an unknown host", s.ApproveHost(t.Context(), "h1", ByOperator, by("no")), ErrNotFound)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		must(t, s.ApproveHost(t.Context(), "h1", ByOperator, by("approve")))
		log, err := s.Audit(t.Context(), 0, 10)
		must(t, err)
		if len(log) != 1 || log[0].Action != "approve" || log[0].Seq != 1 || log[0].Hash != "/approve" {
			t.Errorf("%+v", log)
		}
		last, err := s.LatestAudit(t.Context())
		if err != nil || last.Seq != 1 {
			t.Errorf("%+v, %v", last, err)
		}
		events, err := s.Events(t.Context(), api.EventFilter{Newest: true, Limit: 1}, "")
		must(t, err)
		if len(events) != 1 || events[0].Text != "approve" || events[0].ID != 2 {
			t.Errorf("%+v", events)
		}
		d.Chain = nil
		s = d.reopen(t, s)
		if err := s.ApproveHost(t.Context(), "h1", ByOperator, by("unseen")); err == nil {
			t.Error("something that belongs into the audit log was done without one")
		}
	})
}
