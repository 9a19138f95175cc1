package server_test

import (
	"crypto/rand"
	"errors"
	"net/http"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/sepa"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func ownNonce(t *testing.T) (n attest.Nonce) {
	t.Helper()
	if _, err := rand.Read(n[:]); err != nil {
		t.Fatal(err)
	}
	return n
}

// direct is what somebody does who asks a VM over the network: the challenge, the VM (who), the link.
func (v *verifier) direct(t *testing.T, c *api.Client, m, who *vm, change func(*api.LinkRequest)) (*api.Link, error) {
	t.Helper()
	own := ownNonce(t)
	ch, err := c.Direct(t.Context(), m.Name, api.DirectRequest{Nonce: own})
	if err != nil {
		return nil, err
	}
	if ch.VM != m.UUID || ch.Nonce != binding.DirectNonce(own, ch.Made) {
		t.Errorf("the nonce %v is not made of both parts", ch.Nonce)
	}
	r := api.LinkRequest{Nonce: own, Made: ch.Made, Issued: ch.Issued, Answer: who.Direct(ch.Nonce), Timeout: 5}
	if change != nil {
		change(&r)
	}
	l, err := c.Link(t.Context(), m.Name, r)
	if err != nil {
		return nil, err
	}
	ev, err := attest.DecodeEvidence(l.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	// What the caller verifies by itself: its nonce, its VM, the host's quote over both.
	linked, err := sepa.Verify(ev, &ev.Challenge, time.Now())
	if err != nil || ev.Challenge.Nonce != binding.DirectNonce(own, r.Made) {
		t.Fatalf("%v: not an answer to the caller's nonce", err)
	}
	if vmLink, ok := linked.VM(m.UUID); !ok || vmLink.Err() != nil && l.Report.VMs[0].State == appraise.Trusted {
		t.Errorf("the caller finds %v, the Verifier %v", vmLink.Err(), l.Report.VMs[0].State)
	}
	return l, nil
}

func TestDirect_attests_a_VM_that_the_caller_asks_itself(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		v.host("host1", m, newVM(2))
		want(t, v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Trusted) // enrols the key
		l, err := v.direct(t, v.Client, m, m, nil)
		must(t, err)
		want(t, l.Report.VMs[0], appraise.Trusted)
		ev, err := attest.DecodeEvidence(l.Evidence)
		must(t, err)
		if len(ev.VMs) != 1 || ev.VMs[0].UUID != m.UUID || len(ev.Host.IMA.Data) != 0 || ev.Host.BootLog != nil || ev.Host.Software != nil {
			t.Error("the evidence tells more than the link of this VM")
		}
		m.IMA.File("/usr/bin/unlisted", "x")
		l, err = v.direct(t, v.Client, m, m, nil)
		must(t, err)
		want(t, l.Report.VMs[0], appraise.Untrusted, appraise.CodeIMAUnlisted)
	})
}

// The relay attack over the network: who answers at the VM's address is a pristine clone of it elsewhere.
func TestDirect_finds_an_answer_that_another_machine_gave(t *testing.T) {
	v := newVerifier(t)
	m := newVM(1)
	v.host("host1", m)
	want(t, v.attest(attest.SchemeSEPA, "host1").VMs[0], appraise.Trusted)
	clone := &vm{Box: newBox(), UUID: m.UUID, Name: m.Name, Epoch: m.Epoch}
	clone.TPM = m.TPM // its state was copied: even the keys are the same
	l, err := v.direct(t, v.Client, m, clone, nil)
	must(t, err)
	want(t, l.Report.VMs[0], appraise.Untrusted, appraise.CodeLinkNoRecord)
	l, err = v.direct(t, v.Client, m, clone, func(r *api.LinkRequest) { m.Direct(binding.DirectNonce(r.Nonce, r.Made)) }) // the VM quotes as well
	must(t, err)
	want(t, l.Report.VMs[0], appraise.Untrusted, appraise.CodeLinkHash)
}

func TestLink_refuses_what_is_no_answer_to_a_challenge_of_its_own(t *testing.T) {
	v := newVerifier(t)
	m := newVM(1)
	v.host("host1", m, newVM(2))
	v.attest(attest.SchemeSEPA, "host1")
	var again api.LinkRequest
	_, err := v.direct(t, v.Client, m, m, func(r *api.LinkRequest) { again = *r })
	must(t, err)
	for name, c := range map[string]struct {
		change func(*api.LinkRequest)
		status int
	}{
		"a nonce that the Verifier did not make": {func(r *api.LinkRequest) { r.Made[0] ^= 1 }, http.StatusBadRequest},
		"another time":                           {func(r *api.LinkRequest) { r.Issued++ }, http.StatusBadRequest},
		"too old":                                {func(r *api.LinkRequest) { r.Issued -= 61 }, http.StatusGone},
		"another nonce of the caller's":          {func(r *api.LinkRequest) { r.Nonce = ownNonce(t) }, http.StatusBadRequest},
		"no quote":                               {func(r *api.LinkRequest) { r.Answer.Parameters = nil }, http.StatusBadRequest},
		"a key that is none":                     {func(r *api.LinkRequest) { r.Answer.AK = []byte{1} }, http.StatusBadRequest},
		"a part of the log":                      {func(r *api.LinkRequest) { r.Answer.IMA.From = 1 }, http.StatusBadRequest},
		"an answer that was given before":        {func(r *api.LinkRequest) { *r = again }, http.StatusConflict},
	} {
		_, err := v.direct(t, v.Client, m, m, c.change)
		var p *api.Problem
		if !errors.As(err, &p) || p.Status != c.status {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := v.Direct(t.Context(), m.Name, api.DirectRequest{}); err == nil {
		t.Error("no nonce of the caller's own")
	}
	_, err = v.Link(t.Context(), "vm2", again) // made for another VM
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusBadRequest {
		t.Errorf("the challenge of another VM: %v", err)
	}
}
