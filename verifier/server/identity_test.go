package server_test

import (
	"bytes"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/internal/softtpm"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Attack 13, CVE-2023-38201: the credential has one try, and nothing tells its content.
func TestHello_is_refused_if_the_credential_was_not_opened(t *testing.T) {
	for name, change := range map[string]func([]api.ActivatedKey) []api.ActivatedKey{
		"skipped": func([]api.ActivatedKey) []api.ActivatedKey { return nil },
		"guessed": func(k []api.ActivatedKey) []api.ActivatedKey { k[0].Secret = make([]byte, 32); return k },
		"cut":     func(k []api.ActivatedKey) []api.ActivatedKey { k[0].Secret = k[0].Secret[:31]; return k },
		"empty":   func(k []api.ActivatedKey) []api.ActivatedKey { k[0].Secret = nil; return k },
		"for another machine": func(k []api.ActivatedKey) []api.ActivatedKey {
			k[0].Machine = attest.UUID{1}
			return k
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t)
			h := newHost(t, v.Client, "host1")
			var right []api.ActivatedKey
			h.OnKeys = func(k []api.ActivatedKey) []api.ActivatedKey {
				right = append(right, api.ActivatedKey{Secret: bytes.Clone(k[0].Secret)})
				return change(k)
			}
			err := h.Enrol(t.Context())
			if !api.IsStatus(err, http.StatusForbidden) || strings.Contains(err.Error(), string(right[0].Secret)) {
				t.Errorf("got %v", err)
			}
			err = v.Activated(t.Context(), api.Activated{Host: h.ID(), Items: right})
			if !api.IsStatus(err, http.StatusGone) {
				t.Errorf("second try, with the right content: %v", err)
			}
			hosts, err := v.Hosts(t.Context())
			must(t, err)
			if len(hosts) != 0 {
				t.Errorf("a failed enrolment left %+v", hosts)
			}
			if _, err := v.Poll(t.Context(), api.PollRequest{Host: h.ID()}); !api.IsStatus(err, http.StatusForbidden) {
				t.Errorf("it gets challenges: %v", err)
			}
		})
	}
}

// Attacks 14 and 15.
func TestHello_refuses_an_attestation_key_that_could_sign_forgeries(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		tpm := softtpm.New(rand.Reader, softtpm.ECCEK())
		ak := bytes.Clone(tpm.AKPublic())
		ak[5] &^= 0x01 // TPMA_OBJECT.restricted is bit 16: offset 4 of TPMT_PUBLIC, big endian
		_, err := v.Hello(t.Context(), api.HostHello{Name: "host1", EK: tpm.EKPublic(), AK: ak})
		if !api.IsStatus(err, http.StatusBadRequest) {
			t.Errorf("unrestricted: %v", err)
		}
		_, err = v.Hello(t.Context(), api.HostHello{Name: "host1", EK: tpm.AKPublic(), AK: tpm.AKPublic()})
		if !api.IsStatus(err, http.StatusBadRequest) {
			t.Errorf("a signing key as EK: %v", err)
		}
	})
}

// CVE-2022-23949.
func TestHello_refuses_names_that_forge_log_lines(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		tpm := softtpm.New(rand.Reader, softtpm.ECCEK())
		for _, name := range []string{"", "a\nb", "a\x1b[31m", "\xff", strings.Repeat("x", 300)} {
			_, err := v.Hello(t.Context(), api.HostHello{Name: name, EK: tpm.EKPublic(), AK: tpm.AKPublic()})
			if !api.IsStatus(err, http.StatusBadRequest) {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}

// Attack 12 on hosts, CVE-2025-13609: another TPM is another host, and an operator sees it.
func TestHello_with_the_name_of_another_host_takes_nothing_from_it(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		first := v.host("host1", newVM(1))
		want(t, v.attest(attest.SchemeSEPA, first.ID(), "vm1").VMs[0], appraise.Trusted)
		second := newHost(t, v.Client, "host1")
		must(t, second.Enrol(t.Context()))
		second.Serve()
		hosts, err := v.Hosts(t.Context())
		must(t, err)
		if len(hosts) != 2 {
			t.Fatalf("%d hosts", len(hosts))
		}
		for _, h := range hosts {
			if len(h.Result.Notes) != 1 || h.Result.Notes[0].Code != appraise.CodeIdentityChanged {
				t.Errorf("no note about the second TPM: %+v", h.Result.Notes)
			}
			if h.ID == first.ID() {
				want(t, h.Result, appraise.Trusted)
			} else {
				want(t, h.Result, appraise.Pending, appraise.CodeUnapproved)
			}
		}
		if _, err := v.Attest(t.Context(), api.AttestRequest{Host: "host1", Scheme: attest.SchemeHost}); !api.IsStatus(err, http.StatusConflict) {
			t.Errorf("the name means two hosts: %v", err)
		}
	})
}

func TestAttest_of_an_unapproved_host_is_PENDING_and_leaves_no_trace_of_its_VMs(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		h := newHost(t, v.Client, "host1", m)
		must(t, h.Enrol(t.Context()))
		h.Serve()
		r := v.attest(attest.SchemeSEPA, "host1")
		if r.Host.State == appraise.Trusted || r.VMs[0].State == appraise.Trusted {
			t.Errorf("%s, %s", r.Host.State, r.VMs[0].State)
		}
		if r.Host.Reasons[0].Code != appraise.CodeUnapproved {
			t.Errorf("%+v", r.Host.Reasons)
		}
		if _, err := v.ApproveHost(t.Context(), h.ID(), strings.Repeat("0", 64)); !api.IsStatus(err, http.StatusConflict) {
			t.Errorf("approved by the digest of another key: %v", err)
		}
		// The same vTPM belongs to an honest host from now on: the unapproved one has not claimed it.
		other := v.host("host2", m)
		want(t, v.attest(attest.SchemeSEPA, other.ID(), "vm1").VMs[0], appraise.Trusted)
	})
}

// Attack 11, CVE-2021-3406, CVE-2022-1053: an AK counts only beside the EK that it was activated with.
func TestAttest_fails_if_the_VMs_key_was_not_activated(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		h := v.host("host1", m)
		own := m.TPM
		for name, keys := range map[string]func([]api.ActivatedKey) []api.ActivatedKey{
			"skipped": func([]api.ActivatedKey) []api.ActivatedKey { return nil },
			"wrong":   func(k []api.ActivatedKey) []api.ActivatedKey { k[0].Secret = make([]byte, 32); return k },
		} {
			h.OnKeys = keys
			t.Run(name, func(t *testing.T) {
				want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeAKUnknown)
			})
		}
		h.OnKeys = nil
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		// The guest quotes with another TPM's AK, and its vTPM's EK stays what the host reads.
		foreign := softtpm.New(rand.Reader, softtpm.ECCEK())
		foreign.Safe = true
		h.OnVM = func(e *attest.VMEvidence) {
			e.EK, e.EKName = own.EKPublic(), softtpm.Name(own.EKPublic())
		}
		m.TPM = foreign
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeAKUnknown)
		want(t, v.attest(attest.SchemeSEPAExact, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeAKUnknown)
	})
}

func TestAttest_by_sepa_exact_needs_a_key_that_was_enrolled_before(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		v.host("host1", newVM(1))
		want(t, v.attest(attest.SchemeSEPAExact, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeAKUnknown)
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		want(t, v.attest(attest.SchemeSEPAExact, "", "vm1").VMs[0], appraise.Trusted)
	})
}

// Attack 12: a VM's UUID is a label.
func TestAttest_fails_if_a_VM_shows_another_vTPM_until_an_operator_forgets_the_first(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		v.host("host1", m)
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		m.TPM = newBox().TPM
		for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
			if r := v.attest(s, "", "vm1").VMs[0]; r.State != appraise.Untrusted || r.Reasons[0].Code != appraise.CodeIdentityChanged {
				t.Errorf("%v: %s %+v", s, r.State, r.Reasons)
			}
		}
		must(t, v.DeleteVM(t.Context(), m.UUID.String()))
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted) // its settings stay: it is judged by the same reference values
	})
}

// Attack 50: a fresh VM with an old vTPM.
func TestAttest_fails_if_a_vTPM_appears_in_another_VM(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m, n := newVM(1), newVM(2)
		v.host("host1", m, n)
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		n.TPM = m.TPM
		want(t, v.attest(attest.SchemeSEPA, "", "vm2").VMs[0], appraise.Untrusted, appraise.CodeIdentityChanged)
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
	})
}

// Attacks 46 and 49: one vTPM, one host at a time.
func TestAttest_fails_if_a_vTPM_is_on_two_hosts_and_passes_after_the_first_has_let_go(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		first := v.host("host1", m)
		want(t, v.attest(attest.SchemeSEPA, "host1", "vm1").VMs[0], appraise.Trusted)
		second := v.host("host2", m) // a copy of VM and vTPM
		for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA, attest.SchemeSEPAExact} {
			want(t, v.attest(s, "host2", "vm1").VMs[0], appraise.Untrusted, appraise.CodeIdentityChanged)
		}
		want(t, v.attest(attest.SchemeSEPA, "host1", "vm1").VMs[0], appraise.Trusted) // the copy did no harm
		if _, err := v.Attest(t.Context(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA}); !api.IsStatus(err, http.StatusConflict) {
			t.Errorf("two hosts say that they run it: %v", err)
		}
		first.Mu.Lock()
		first.VMs = nil
		first.Mu.Unlock()
		must(t, first.Enrol(t.Context())) // the VM was migrated: its first host says that it left
		want(t, v.attest(attest.SchemeSEPA, "host2", "vm1").VMs[0], appraise.Trusted)
		second.VMs[0].IMA.File("/usr/bin/init", "init")
		want(t, v.attest(attest.SchemeHYPA, "host2", "vm1").VMs[0], appraise.Trusted)
	})
}

func TestAttest_finds_the_host_of_a_VM_although_an_unapproved_one_claims_it_too(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		honest := v.host("host1", m)
		liar := newHost(t, v.Client, "host2", newVM(1))
		must(t, liar.Enrol(t.Context()))
		r := v.attest(attest.SchemeSEPA, "", "vm1")
		want(t, r.VMs[0], appraise.Trusted)
		if r.Host.Host != honest.ID() {
			t.Errorf("host %s was asked, want %s", r.Host.Host, honest.ID())
		}
	})
}

func TestDeleteHost_forgets_it_also_while_it_is_attested(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		h := v.host("host1", newVM(1))
		want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		h.OnEvid = func(*attest.Evidence) { must(t, v.DeleteHost(t.Context(), h.ID())) }
		r, err := v.Attest(t.Context(), api.AttestRequest{Host: "host1", Scheme: attest.SchemeHost, Timeout: 1})
		must(t, err)
		if r.Host.State == appraise.Trusted {
			t.Error("a removed host is trusted")
		}
		hosts, err := v.Hosts(t.Context())
		must(t, err)
		vms, err := v.VMs(t.Context())
		must(t, err)
		if len(hosts) != 0 || len(vms) != 0 {
			t.Errorf("an answer under way brought back %+v %+v", hosts, vms)
		}
	})
}
