package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/internal/simhost"
)

func TestAttest_by_every_scheme_trusts_machines_that_are_as_their_reference(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		v.host("host1", newVM(1), newVM(2), newVM(3))
		simhost.EveryScheme(t, func(s attest.Scheme, vms ...string) *api.Report { return v.attest(s, "", vms...) })
		vms, err := v.VMs(t.Context())
		must(t, err)
		hosts, err := v.Hosts(t.Context())
		must(t, err)
		if len(vms) != 3 || len(hosts) != 1 || !hosts[0].Online || hosts[0].Result.State != appraise.Trusted || vms[0].Result.State != appraise.Trusted {
			t.Errorf("%+v %+v", vms, hosts)
		}
	})
}

func TestAttest_sends_only_new_log_entries_and_keeps_the_whole_log(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		h := v.host("host1", m)
		v.attest(attest.SchemeSEPA, "host1")
		m.IMA.File("/usr/bin/init", "init")
		var asked attest.Resume
		h.OnEvid = func(ev *attest.Evidence) { asked = ev.Challenge.ResumeFor(m.UUID) }
		for _, scheme := range []attest.Scheme{attest.SchemeHYPA, attest.SchemeSEPA} {
			r := v.attest(scheme, "host1", "vm1")
			want(t, r.VMs[0], appraise.Trusted)
			if r.VMs[0].Entries != 3 {
				t.Errorf("%d entries", r.VMs[0].Entries)
			}
		}
		if asked.Count != 3 || asked.BootID != "boot-1" {
			t.Errorf("asked to resume at %+v", asked)
		}
		log, err := v.MachineIMA(t.Context(), m.UUID.String())
		must(t, err)
		if string(log) != string(m.IMA.Data) {
			t.Error("the log that is kept is not the machine's")
		}
	})
}

func TestAttest_reports_an_unlisted_program_and_takes_the_VM_down_with_its_host(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		h := v.host("host1", m)
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		m.IMA.File("/tmp/evil", "evil")
		r := v.attest(attest.SchemeSEPA, "", "vm1")
		want(t, r.VMs[0], appraise.Untrusted, appraise.CodeIMAUnlisted)
		if why := r.VMs[0].Reasons[0]; why.Path != "/tmp/evil" || why.Entry == nil || *why.Entry != 2 {
			t.Errorf("%+v", why)
		}
		m2 := newVM(2)
		h.VMs = append(h.VMs, m2)
		must(t, h.Enrol(t.Context()))
		must(t, v.AssignRIMs(t.Context(), m2.UUID.String(), []string{"good"}))
		want(t, v.attest(attest.SchemeSEPA, "", "vm2").VMs[0], appraise.Trusted)
		h.IMA.File("/root/evil", "evil")
		want(t, v.attest(attest.SchemeHost, "host1").Host, appraise.Untrusted, appraise.CodeIMAUnlisted)
		vms, err := v.VMs(t.Context())
		must(t, err)
		want(t, vms[1].Result, appraise.Untrusted, appraise.CodeHostNotTrusted) // without being asked itself
	})
}

// Attacks 1 and 3.
func TestAttest_rejects_a_relayed_VM_quote(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		h := v.host("host1", m)
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		// The bad VM has a pristine clone with the same vTPM elsewhere answer: a quote that is good by itself.
		h.OnEvid = func(ev *attest.Evidence) {
			clone := m.Evidence(&ev.Challenge)
			ev.VMs[0].Quote = clone.Quote
		}
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeLinkHash)
	})
}

func TestAttest_is_UNCONFIGURED_without_reference_values_and_never_green(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		v.host("host1", m)
		must(t, v.AssignRIMs(t.Context(), m.UUID.String(), nil))
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Unconfigured, appraise.CodeNoReference)
	})
}

func TestAttest_applies_changed_reference_values_to_what_ran_before(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		v.host("host1", m)
		m.IMA.File("/usr/bin/new", "new")
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeIMAUnlisted)
		must(t, v.PutRIM(t.Context(), "update", m.Golden(t, "update")))
		must(t, v.AssignRIMs(t.Context(), m.UUID.String(), []string{"good", "update"}))
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		must(t, v.AssignRIMs(t.Context(), m.UUID.String(), []string{"good"}))
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeIMAUnlisted)
	})
}

func TestAttest_keeps_concurrent_answers_apart(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		v.host("host1", newVM(1))
		v.host("host2", newVM(2))
		simhost.Concurrently(t, func(_ int, r api.AttestRequest) (*api.Report, error) { return v.Attest(t.Context(), r) })
	})
}

func TestAttest_wakes_the_hosts_poll_at_once(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		v.host("host1")
		time.Sleep(100 * time.Millisecond) // the poll waits by now
		start := time.Now()
		want(t, v.attest(attest.SchemeHost, "").Host, appraise.Trusted)
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

func TestAttest_of_a_host_that_does_not_answer_is_UNREACHABLE_on_time(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		h := v.host("host1", newVM(1))
		want(t, v.attest(attest.SchemeSEPA, "").VMs[0], appraise.Trusted)
		h.OnSend = func(*attest.Evidence) bool { return false }
		start := time.Now()
		r, err := v.Attest(t.Context(), api.AttestRequest{Scheme: attest.SchemeSEPA, Timeout: 1})
		must(t, err)
		want(t, r.Host, appraise.Unreachable, appraise.CodeNoAnswer)
		want(t, r.VMs[0], appraise.Unreachable, appraise.CodeNoAnswer)
		if d := time.Since(start); d < time.Second || d > 3*time.Second {
			t.Errorf("took %v", d)
		}
		vms, err := v.VMs(t.Context())
		must(t, err)
		want(t, vms[0].Result, appraise.Unreachable, appraise.CodeNoAnswer)
	})
}

func TestAttest_names_what_it_cannot_find(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		v.host("host1", newVM(1))
		v.host("host2", newVM(2))
		for _, c := range []struct {
			r      api.AttestRequest
			status int
		}{
			{api.AttestRequest{Scheme: attest.SchemeSEPA, Host: "host3"}, 404},
			{api.AttestRequest{Scheme: attest.SchemeSEPA, VMs: []string{"vm9"}}, 404},
			{api.AttestRequest{Scheme: attest.SchemeSEPA}, 409},
			{api.AttestRequest{Scheme: attest.SchemeSEPA, Host: "host1", VMs: []string{"vm2"}}, 404},
			{api.AttestRequest{Scheme: attest.SchemeHost, Host: "host1", VMs: []string{"vm1"}}, 400},
			{api.AttestRequest{Scheme: attest.SchemeSEPAExact, Host: "host1"}, 400},
			{api.AttestRequest{Scheme: attest.SchemeSEPA, Host: "host1", Timeout: 301}, 400},
			{api.AttestRequest{Scheme: attest.SchemeSEPA, Host: "host1", Timeout: -1}, 400},
		} {
			if _, err := v.Attest(t.Context(), c.r); !api.IsStatus(err, c.status) {
				t.Errorf("%+v: %v, want %d", c.r, err, c.status)
			}
		}
		r := v.attest(attest.SchemeSEPA, "host1", "00000000-0000-0000-0000-0000000000ff")
		want(t, r.VMs[0], appraise.Unreachable, appraise.CodeNotRunning)
		_, err := v.Report(t.Context(), strings.Repeat("0", 64))
		if !api.IsStatus(err, http.StatusNotFound) {
			t.Error(err)
		}
	})
}

func TestAttest_of_all_finds_a_VM_that_the_host_hides(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(2)
		h := v.host("host1", newVM(1), m)
		h.Mu.Lock()
		h.VMs = h.VMs[:1]
		h.Mu.Unlock()
		r := v.attest(attest.SchemeSEPA, "host1")
		want(t, r.VMs[0], appraise.Trusted)
		want(t, r.VMs[1], appraise.Untrusted, appraise.CodeVMMissing)
	})
}
