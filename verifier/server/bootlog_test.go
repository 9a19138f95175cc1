package server_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/softtpm"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/rim"
)

// bootLogs notes what boot logs a host sends.
type bootLogs struct {
	mu   sync.Mutex
	last map[attest.UUID]int // their sizes
}

func (b *bootLogs) watch(h *host) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	h.OnEvid = func(ev *attest.Evidence) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.last = map[attest.UUID]int{{}: len(ev.Host.BootLog)}
		for i := range ev.VMs {
			b.last[ev.VMs[i].UUID] = len(ev.VMs[i].BootLog)
		}
	}
}

func (b *bootLogs) want(t *testing.T, what string, host, vm bool) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := b.last[attest.UUID{}] > 0; got != host {
		t.Errorf("%s: the host's boot log came: %v", what, got)
	}
	if got := b.last[attest.UUID{15: 1}] > 0; got != vm {
		t.Errorf("%s: the VM's boot log came: %v", what, got)
	}
}

// reboot starts the VM's guest anew.
func reboot(v *vm, h *host, bootID string) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	fresh := newBox()
	v.Boot, v.IMA, v.BootID = fresh.Boot, fresh.IMA, bootID
	v.TPM.ResetCount++
}

// bootPolicy is a policy that requires a boot log, and events that one of the rules allows.
func (v *verifier) bootPolicy(name, rules string) *policy.Index {
	v.t.Helper()
	b := fmt.Appendf(nil, `{"format": "virt-attest/policy/1", "name": %q, "boot": {"log": "required", "rules": [%q]}}`, name, rules)
	_, err := v.PutDocument(v.t.Context(), api.DocPolicy, name, api.DocPut{Content: b, Activate: true})
	must(v.t, err)
	x, err := new(policy.Library).Load(b)
	must(v.t, err)
	return x
}

// wantEvents holds a result that rules for boot events decide against what is expected.
func wantEvents(t *testing.T, what string, r appraise.Result, state appraise.State) {
	t.Helper()
	for _, why := range r.Reasons {
		if why.Code != appraise.CodeBootEvent {
			t.Errorf("%s: %s, %s", what, why.Code, why.Text)
		}
	}
	if r.State != state {
		t.Errorf("%s: %s", what, r.State)
	}
}

func TestBootLog_comes_once_in_a_boot_and_judges_it_ever_after(t *testing.T) {
	v := newVerifier(t)
	m := newVM(1)
	h := v.host("host1", m)
	var sent bootLogs
	sent.watch(h)
	want(t, v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Trusted)
	sent.want(t, "first", true, true)
	second := v.attest(attest.SchemeSEPA, "host1")
	want(t, second.VMs[0], appraise.Trusted)
	sent.want(t, "second", false, false)

	b, err := v.ReportEvidence(t.Context(), second.ID)
	must(t, err)
	whole, err := attest.DecodeEvidence(b)
	must(t, err)
	if !bytes.Equal(whole.VMs[0].BootLog, m.Boot.Data) || !bytes.Equal(whole.Host.BootLog, h.Boot.Data) {
		t.Error("saved evidence is without boot logs")
	}
	log, err := v.MachineBootLog(t.Context(), m.UUID.String())
	must(t, err)
	if !bytes.Equal(log, m.Boot.Data) {
		t.Errorf("a boot log of %d bytes", len(log))
	}
	events, err := v.BootEvents(t.Context(), m.UUID.String())
	must(t, err)
	if len(events) == 0 {
		t.Error("no boot events")
	}

	reboot(m, h, "boot-2")
	want(t, v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Trusted)
	sent.want(t, "rebooted", false, true)
	want(t, v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Trusted)
	sent.want(t, "after that", false, false)
	h.Mu.Lock()
	m.Boot.Event(5, measuretest.EvAction, []byte("something that the firmware measured late"))
	m.Boot.Data = nil // and nobody shows
	h.Mu.Unlock()
	want(t, v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Untrusted, appraise.CodePCRMismatch, appraise.CodeBootLog)
	sent.want(t, "PCRs changed within the boot", false, false)
}

func TestBootLog_on_record_is_judged_by_a_policy_of_later(t *testing.T) {
	v := newVerifier(t)
	m := newVM(1)
	h := v.host("host1", m)
	var sent bootLogs
	sent.watch(h)
	v.attest(attest.SchemeSEPA, "host1")
	second := v.attest(attest.SchemeSEPA, "host1")
	sent.want(t, "second", false, false)
	narrow, wide := v.bootPolicy("narrow", "linux"), v.bootPolicy("wide", "pc")
	rule := func(policy string) *api.Report {
		t.Helper()
		must(t, v.PutSettings(t.Context(), m.UUID.String(), api.Settings{Policy: policy, RIMs: []string{"good"}}))
		return v.attest(attest.SchemeSEPA, "host1")
	}
	third := rule("narrow")
	sent.want(t, "with other rules", false, false)
	wantEvents(t, "rules that do not allow it", third.VMs[0], appraise.Untrusted)
	fourth := rule("wide")
	wantEvents(t, "rules that allow it", fourth.VMs[0], appraise.Trusted)

	index, err := new(rim.Library).Load(newBox().Golden(t, "good"))
	must(t, err)
	refs := evaluate.References{h.ID(): {index}, m.UUID.String(): {index}}
	anchors := evaluate.Anchors{HostEK: api.EKSHA256(h.TPM.EKPublic()), HostAK: h.TPM.AKName(),
		VTPMs: []evaluate.VTPM{{EKName: softtpm.Name(m.TPM.EKPublic()), UUID: m.UUID, AKName: m.TPM.AKName()}}}
	for _, r := range []*api.Report{second, third, fourth} {
		b, err := v.ReportEvidence(t.Context(), r.ID)
		must(t, err)
		for x, state := range map[*policy.Index]appraise.State{narrow: appraise.Untrusted, wide: appraise.Trusted} {
			got, err := evaluate.VerifySaved(b, anchors, refs, x.Appraisal(), time.Now())
			must(t, err)
			if got.Host.State != appraise.Trusted && x == wide {
				t.Errorf("offline, the host: %+v", got.Host.Reasons)
			}
			if x == wide {
				wantEvents(t, "offline", got.VMs[0], state)
			} else if got.VMs[0].State != state {
				t.Errorf("offline: %s", got.VMs[0].State)
			}
		}
		again, err := v.Reverify(t.Context(), r.ID)
		must(t, err)
		if !again.Same {
			t.Errorf("judged again: %v", again.Difference)
		}
	}
}

func TestBootLog_that_rules_of_later_allow_is_kept_from_the_evidence_that_brought_it(t *testing.T) {
	v := newVerifier(t)
	m := newVM(1)
	h := v.host("host1", m)
	var sent bootLogs
	sent.watch(h)
	v.bootPolicy("rules", "linux")
	must(t, v.PutSettings(t.Context(), m.UUID.String(), api.Settings{Policy: "rules", RIMs: []string{"good"}}))
	wantEvents(t, "rules that do not allow it", v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Untrusted)
	sent.want(t, "with findings", true, true)
	for range 2 {
		wantEvents(t, "rules that still do not allow it", v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Untrusted)
		sent.want(t, "with findings, again", false, false)
	}
	v.bootPolicy("rules", "pc")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r, err := v.VM(t.Context(), m.UUID.String())
		must(t, err)
		if r.Result.State == appraise.Trusted {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", r.Result)
		}
	}
	r := v.attest(attest.SchemeSEPA, "host1")
	wantEvents(t, "rules that allow it", r.VMs[0], appraise.Trusted)
	sent.want(t, "once it is in order", false, false)
	b, err := v.ReportEvidence(t.Context(), r.ID)
	must(t, err)
	whole, err := attest.DecodeEvidence(b)
	must(t, err)
	if !bytes.Equal(whole.VMs[0].BootLog, m.Boot.Data) {
		t.Errorf("saved evidence has a boot log of %d bytes", len(whole.VMs[0].BootLog))
	}
}

// A log that does not explain the PCRs may be followed by one that does.
func TestBootLog_that_is_wrong_comes_again_until_it_is_right(t *testing.T) {
	v := newVerifier(t)
	m := newVM(1)
	h := v.host("host1", m)
	var sent bootLogs
	sent.watch(h)
	right := m.Boot.Data
	h.Mu.Lock()
	m.Boot.Data = right[:len(right)-len(right)/4]
	h.Mu.Unlock()
	for range 2 {
		if r := v.attest(attest.SchemeSEPA, "host1").VMs[0]; r.State != appraise.Untrusted {
			t.Errorf("%s", r.State)
		}
	}
	sent.want(t, "a wrong one", false, true)
	h.Mu.Lock()
	m.Boot.Data = right
	h.Mu.Unlock()
	want(t, v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Trusted)
	sent.want(t, "the right one", false, true)
	want(t, v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Trusted)
	sent.want(t, "after that", false, false)
}
