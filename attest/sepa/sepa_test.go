package sepa_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/internal/linktest"
	"virt-attest/attest/link"
	"virt-attest/attest/quote"
	"virt-attest/attest/sepa"
	"virt-attest/internal/softhost"
	"virt-attest/internal/softtpm"
)

var verify = linktest.Verify(sepa.Verify).Linked

// failed checks that a VM failed, and that nothing of it is handed out as proven.
func failed(t testing.TB, v link.VMLink, kind link.Kind) {
	t.Helper()
	linktest.WantKind(t, v.LinkErr, kind)
	if v.Quote != nil || v.Banks != nil {
		t.Errorf("VM %v failed and still has proven values", v.UUID)
	}
}

func TestVerify_proves_every_VM_of_an_honest_host(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 17} {
		t.Run(fmt.Sprint(n, " VMs"), func(t *testing.T) {
			h := softhost.New("good", n)
			l := verify(t, h.Answer(h.Challenge(attest.SchemeSEPA)))
			if l.Err() != nil || len(l.VMs) != n || l.Host.Quote == nil || !bytes.Equal(l.Host.AK, h.TPM.AKName()) {
				t.Fatalf("%+v: %v", l, l.Err())
			}
			for i, v := range l.VMs {
				vm := h.VMs[i]
				b, _ := attest.Bank(v.Banks, attest.SHA256)
				if v.UUID != vm.UUID || v.Epoch != 1 || !bytes.Equal(v.AKName, vm.TPM.AKName()) || !bytes.Equal(v.EKName, softtpm.Name(vm.TPM.EKPublic())) || !bytes.Equal(b.Get(10), vm.Banks[0].Get(10)) {
					t.Errorf("VM %d: %+v", i, v)
				}
			}
		})
	}
}

func TestVerify_proves_by_the_papers_own_composite(t *testing.T) {
	h := softhost.New("good", 2)
	ev := h.Answer(h.Challenge(attest.SchemeSEPAExact, h.VMs[1]))
	l := verify(t, ev)
	if l.Err() != nil || len(l.VMs) != 1 || l.VMs[0].Banks == nil {
		t.Fatalf("%+v: %v", l, l.Err())
	}
	if l.VMs[0].EKName != nil || l.VMs[0].Epoch != 0 {
		t.Error("endorsement key and epoch are given as signed, and the paper's composite does not sign them")
	}
	ak, err := quote.ParseAK(ev.Host.AK)
	if err != nil {
		t.Fatal(err)
	}
	extra := binding.Exact(ev.Challenge.Nonce, ev.VMs[0].Quote.Hash())
	if _, err := quote.Verify(ev.Host.Quote, ak, extra[:], ev.Host.PCRs); err != nil {
		t.Errorf("the pTPM did not quote over H(n || VmAttestationHash): %v", err)
	}
}

func TestVerify_gives_each_challenge_of_a_round_its_own_proof(t *testing.T) {
	h := softhost.New("good", 4)
	cs := []*attest.Challenge{h.Challenge(attest.SchemeSEPA), h.Challenge(attest.SchemeSEPA, h.VMs[2]), h.Challenge(attest.SchemeHYPA), h.Challenge(attest.SchemeHost), h.Challenge(attest.SchemeSEPA, h.VMs[0], h.VMs[3])}
	evs := h.Round(cs...)
	for i, c := range cs {
		if !bytes.Equal(evs[i].Host.Quote.Attest, evs[0].Host.Quote.Attest) {
			t.Error("more than one pTPM quote")
		}
		if c.Scheme == attest.SchemeSEPA && verify(t, evs[i]).Err() != nil {
			t.Errorf("challenge %d: %v", i, verify(t, evs[i]).Err())
		}
	}
	evs[0].Inclusion = evs[1].Inclusion
	linktest.WantKind(t, verify(t, evs[0]).Err(), link.KindComposite)
}

// Attack 1, the relay attack of the paper: a pristine clone of VM and vTPM on the attacker's host answers for
// the bad VM on the good host. Its key is the same, its quote is good, fresh, and over good PCRs.
func TestVerify_rejects_the_relay_attack(t *testing.T) {
	for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeSEPAExact} {
		t.Run(s.String(), func(t *testing.T) {
			h := softhost.New("good", 1)
			bad := h.VMs[0]
			pristine := bad.Banks
			bad.Banks = softhost.Banks("with a rootkit", attest.SHA256)
			clone := bad.TPM // the same keys: a copy of the vTPM's state
			bad.Guest = func(nonce attest.Nonce, _ attest.Quote) (attest.Quote, []byte, []attest.PCRBank) {
				return clone.Quote(nonce[:], pristine), clone.AKPublic(), pristine
			}
			l := verify(t, h.Answer(h.Challenge(s, bad)))
			failed(t, l.VMs[0], link.KindHash)
			if l.Host.Err != nil || l.VMs[0].QuoteErr != nil {
				t.Errorf("checked separately, host and VM would not pass (%v, %v): this is not the attack", l.Host.Err, l.VMs[0].QuoteErr)
			}
			if s := l.VMs[0].LinkErr.Error(); !strings.Contains(s, "relayed") || !strings.Contains(s, bad.UUID.String()) {
				t.Errorf("an operator reads only: %s", s)
			}
		})
	}
}

// Attack 1 again, the bad VM keeping its own vTPM silent: the host finds no record.
func TestVerify_rejects_a_relay_without_a_record(t *testing.T) {
	h := softhost.New("good", 2)
	h.VMs[0].Status = attest.VMNoRecord
	l := verify(t, h.Answer(h.Challenge(attest.SchemeSEPA)))
	failed(t, l.VMs[0], link.KindNoRecord)
	if l.VMs[1].Err() != nil {
		t.Errorf("the other VM failed with it: %v", l.VMs[1].Err())
	}
}

// Attack 2: another vTPM than the VM had. The link holds; the names say that it is another one.
func TestVerify_shows_a_swapped_vTPM_by_its_names(t *testing.T) {
	h := softhost.New("good", 1)
	before := verify(t, h.Answer(h.Challenge(attest.SchemeSEPA))).VMs[0]
	h.VMs[0].TPM = softhost.New("evil", 1).VMs[0].TPM
	after := verify(t, h.Answer(h.Challenge(attest.SchemeSEPA))).VMs[0]
	if after.Err() != nil || bytes.Equal(before.EKName, after.EKName) || bytes.Equal(before.AKName, after.AKName) {
		t.Error("a caller could not tell")
	}
}

// Attacks 3, 5, 6, 8, 11 and GHSA-r2h5-3hgw-8j34: genuine pieces put together wrongly.
func TestVerify_rejects_an_answer(t *testing.T) {
	h, other := softhost.New("good", 3), softhost.New("other", 3)
	for name, c := range map[string]struct {
		change func(ev *attest.Evidence)
		kind   link.Kind
	}{
		"with another host's quote (3)": {func(ev *attest.Evidence) {
			o := other.Answer(&ev.Challenge)
			ev.Host.Quote, ev.Host.AK, ev.Host.PCRs = o.Host.Quote, o.Host.AK, o.Host.PCRs
		}, link.KindComposite},
		"with this host's quote of another challenge (5)": {func(ev *attest.Evidence) {
			ev.Host.Quote = h.Answer(h.Challenge(attest.SchemeSEPA, h.VMs[0])).Host.Quote
		}, link.KindComposite},
		"with a host quote made for HYPA": {func(ev *attest.Evidence) {
			c := ev.Challenge
			c.Scheme = attest.SchemeHYPA
			ev.Host.Quote = h.Answer(&c).Host.Quote
		}, link.KindComposite},
		"with a VM's whole evidence from an earlier challenge (5)": {func(ev *attest.Evidence) {
			ev.VMs[1] = h.Answer(h.Challenge(attest.SchemeSEPA, h.VMs[1])).VMs[0]
		}, link.KindComposite},
		"with two VMs' labels exchanged (GHSA-r2h5-3hgw-8j34)": {func(ev *attest.Evidence) {
			ev.VMs[0], ev.VMs[1] = ev.VMs[1], ev.VMs[0]
			ev.VMs[0].UUID, ev.VMs[1].UUID = ev.VMs[1].UUID, ev.VMs[0].UUID
		}, link.KindComposite},
		"with another vTPM named in a leaf (GHSA-r2h5-3hgw-8j34)": {func(ev *attest.Evidence) { ev.VMs[0].EKName = ev.VMs[1].EKName }, link.KindComposite},
		"with another key named in a leaf (11)":                   {func(ev *attest.Evidence) { ev.VMs[0].AKName = ev.VMs[1].AKName }, link.KindComposite},
		"with another epoch":                                      {func(ev *attest.Evidence) { ev.VMs[0].Epoch++ }, link.KindComposite},
		"with another status":                                     {func(ev *attest.Evidence) { ev.VMs[0].Status = attest.VMNoAnswer }, link.KindComposite},
		"with the hash of what the guest sent put into the leaf (8)": {func(ev *attest.Evidence) {
			n := binding.VMNonce(attest.SchemeSEPA, ev.Challenge.Nonce, ev.VMs[0].UUID)
			ev.VMs[0].Quote = h.VMs[0].TPM.Quote(n[:], softhost.Banks("pristine", attest.SHA256))
			ev.VMs[0].QuoteHash = ev.VMs[0].Quote.Hash()
		}, link.KindComposite},
		"without one of the VMs": {func(ev *attest.Evidence) { ev.VMs = ev.VMs[:2] }, link.KindComposite},
		"with one VM more": {func(ev *attest.Evidence) {
			ev.VMs = append(ev.VMs, other.Answer(other.Challenge(attest.SchemeSEPA)).VMs[0])
			ev.VMs[3].UUID[0] = 0xff
		}, link.KindComposite},
		"with another place in the round": {func(ev *attest.Evidence) {
			ev.Inclusion = attest.Inclusion{Index: 1, Count: 2, Path: []attest.Digest{{}}}
		}, link.KindComposite},
		"with no place in the round": {func(ev *attest.Evidence) { ev.Inclusion = attest.Inclusion{} }, link.KindComposite},
	} {
		t.Run(name, func(t *testing.T) {
			ev := h.Answer(h.Challenge(attest.SchemeSEPA))
			c.change(ev)
			l := verify(t, ev)
			linktest.WantKind(t, l.Host.Err, c.kind)
			if l.Host.Quote != nil || l.Host.AK != nil {
				t.Error("the host's quote or key is handed out as verified")
			}
			for _, v := range l.VMs {
				failed(t, v, link.KindHost) // attack 59: no VM is better than its host
				if v.EKName != nil || v.AKName != nil || v.Epoch != 0 || v.Status != 0 {
					t.Error("names that nothing signs are handed out")
				}
			}
		})
	}
}

// A host's own lies and a guest's lies about itself hurt one VM and no other (attack 59).
func TestVerify_rejects_one_VM_and_keeps_the_others_if(t *testing.T) {
	forger := softhost.New("forger", 1).VMs[0].TPM
	for name, c := range map[string]struct {
		prepare func(h *softhost.Host)
		change  func(ev *attest.Evidence)
		kind    link.Kind
		quote   quote.Kind
	}{
		"the guest changed its quote": {nil, func(ev *attest.Evidence) { ev.VMs[1].Quote.Signature[20] ^= 1 }, link.KindHash, quote.KindSignature},
		"the guest sent another VM's quote (3)": {nil, func(ev *attest.Evidence) {
			ev.VMs[1].Quote, ev.VMs[1].AK, ev.VMs[1].PCRs = ev.VMs[0].Quote, ev.VMs[0].AK, ev.VMs[0].PCRs
		}, link.KindHash, quote.KindNonce},
		"the guest sent another key (11)":                {nil, func(ev *attest.Evidence) { ev.VMs[1].AK = forger.AKPublic() }, link.KindIdentity, quote.KindSigner},
		"the guest sent no key":                          {nil, func(ev *attest.Evidence) { ev.VMs[1].AK = nil }, link.KindIdentity, quote.KindAK},
		"the guest sent no quote":                        {nil, func(ev *attest.Evidence) { ev.VMs[1].Quote = attest.Quote{} }, link.KindHash, quote.KindMalformed},
		"the endorsement key is not the one in the leaf": {nil, func(ev *attest.Evidence) { ev.VMs[1].EK = ev.VMs[0].EK }, link.KindIdentity, ""},
		"the endorsement key is missing":                 {nil, func(ev *attest.Evidence) { ev.VMs[1].EK = nil }, link.KindIdentity, ""},
		"its values are not the quoted ones (23)":        {nil, func(ev *attest.Evidence) { ev.VMs[1].PCRs[0].PCRs[10].Value[0] ^= 1 }, "", quote.KindPCRs},
		"its values are missing (CVE-2022-0317)":         {nil, func(ev *attest.Evidence) { ev.VMs[1].PCRs = nil }, "", quote.KindPCRs},
		"it does not run here": {func(h *softhost.Host) {
			h.VMs[1].Status = attest.VMNotRunning
		}, nil, link.KindNotRunning, quote.KindAK},
		"its agent did not answer":                {func(h *softhost.Host) { h.VMs[1].Status = attest.VMNoAnswer }, nil, link.KindNoAnswer, quote.KindAK},
		"its vTPM is dead":                        {func(h *softhost.Host) { h.VMs[1].Status = attest.VMNoTPM }, nil, link.KindNoTPM, quote.KindAK},
		"it has a copy of another VM's vTPM (46)": {func(h *softhost.Host) { h.VMs[1].TPM = h.VMs[2].TPM }, nil, link.KindClone, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := softhost.New("good", 4)
			if c.prepare != nil {
				c.prepare(h)
			}
			ev := h.Answer(h.Challenge(attest.SchemeSEPA))
			if c.change != nil {
				c.change(ev)
			}
			l := verify(t, ev)
			if l.Host.Err != nil || l.VMs[0].Err() != nil || l.VMs[3].Err() != nil || l.VMs[0].Banks == nil {
				t.Errorf("others failed too: %v, %v, %v", l.Host.Err, l.VMs[0].Err(), l.VMs[3].Err())
			}
			if c.kind != "" {
				failed(t, l.VMs[1], c.kind)
			}
			if (c.quote != "") != (l.VMs[1].QuoteErr != nil) || c.quote != "" && !errors.Is(l.VMs[1].QuoteErr, &quote.Error{Kind: c.quote}) {
				t.Errorf("quote error %v, want kind %q", l.VMs[1].QuoteErr, c.quote)
			}
			if l.VMs[1].Banks != nil || l.VMs[1].Quote != nil || l.VMs[1].Err() == nil || l.Err() == nil {
				t.Error("something of the bad VM is handed out as proven")
			}
		})
	}
}

// Attack 6: the quote of one VM does not answer for another even where host and guests are of one mind.
func TestVerify_rejects_a_recorded_quote_over_another_VMs_nonce(t *testing.T) {
	h := softhost.New("good", 2)
	c := h.Challenge(attest.SchemeSEPA)
	ev := h.Answer(c)
	n := binding.VMNonce(c.Scheme, c.Nonce, h.VMs[0].UUID)
	ev.VMs[1].Quote = h.VMs[1].TPM.Quote(n[:], h.VMs[1].Banks)
	ev.VMs[1].QuoteHash = ev.VMs[1].Quote.Hash()
	resign(h, ev)
	l := verify(t, ev)
	if l.VMs[1].LinkErr != nil || !errors.Is(l.VMs[1].QuoteErr, &quote.Error{Kind: quote.KindNonce}) || l.VMs[1].Banks != nil || l.VMs[0].Err() != nil {
		t.Errorf("%+v", l.VMs)
	}
}

// A guest that sends another VM's key, with a host that believes it, makes no copy of that VM.
func TestVerify_keeps_a_VM_whose_key_another_guest_claims(t *testing.T) {
	h := softhost.New("good", 2)
	ev := h.Answer(h.Challenge(attest.SchemeSEPA))
	ev.VMs[0].AK, ev.VMs[0].AKName = ev.VMs[1].AK, ev.VMs[1].AKName
	resign(h, ev)
	l := verify(t, ev)
	if l.VMs[1].Err() != nil || l.VMs[0].Err() == nil || l.VMs[0].Banks != nil {
		t.Errorf("%v, %v", l.VMs[0].Err(), l.VMs[1].Err())
	}
}

// Attack 46: both VMs that share a vTPM fail; nobody can say which one is the copy.
func TestVerify_rejects_both_VMs_that_share_a_vTPM(t *testing.T) {
	h := softhost.New("good", 3)
	h.VMs[0].TPM = h.VMs[2].TPM
	l := verify(t, h.Answer(h.Challenge(attest.SchemeSEPA)))
	failed(t, l.VMs[0], link.KindClone)
	failed(t, l.VMs[2], link.KindClone)
	if l.VMs[1].Err() != nil {
		t.Error(l.VMs[1].Err())
	}
}

// resign lets the host sign whatever ev says: what a host can do that lies.
func resign(h *softhost.Host, ev *attest.Evidence) {
	item := binding.Item(ev.Challenge.Scheme, ev.Challenge.Nonce, softhost.Body(ev.Challenge.Scheme, ev.VMs))
	extra := binding.Round([]attest.Digest{item})
	ev.Inclusion = binding.Include([]attest.Digest{item}, 0)
	ev.Host.Quote = h.TPM.Quote(extra[:], h.Banks)
}

func TestVerify_reports_VMs_left_out_and_VMs_not_asked_for(t *testing.T) {
	h := softhost.New("good", 3)
	ev := h.Answer(h.Challenge(attest.SchemeSEPA, h.VMs[0], h.VMs[1]))
	ev.VMs[0] = h.Answer(h.Challenge(attest.SchemeSEPA)).VMs[0]
	ev.VMs = append(ev.VMs[1:], h.Answer(h.Challenge(attest.SchemeSEPA)).VMs[2])
	resign(h, ev)
	l := verify(t, ev)
	if len(l.VMs) != 3 || l.Host.Err != nil {
		t.Fatalf("%+v", l)
	}
	failed(t, l.VMs[0], link.KindMissing)
	failed(t, l.VMs[2], link.KindUnasked)
	if l.VMs[1].Err() != nil {
		t.Error(l.VMs[1].Err())
	}
	if _, ok := l.VM(attest.UUID{9}); ok {
		t.Error("a VM out of nowhere")
	}
	if v, ok := l.VM(h.VMs[0].UUID); !ok || v.LinkErr == nil {
		t.Error("the VM left out is not among the results")
	}
}

func TestVerify_refuses_what_is_no_answer_to_the_challenge(t *testing.T) {
	h := softhost.New("good", 2)
	for name, c := range map[string]struct {
		change func(ev *attest.Evidence, want *attest.Challenge)
		kind   link.Kind
	}{
		"another nonce (5)":       {func(_ *attest.Evidence, want *attest.Challenge) { want.Nonce[0] ^= 1 }, link.KindChallenge},
		"other VMs":               {func(_ *attest.Evidence, want *attest.Challenge) { want.VMs = []attest.UUID{h.VMs[0].UUID} }, link.KindChallenge},
		"another resume point":    {func(_ *attest.Evidence, want *attest.Challenge) { want.Resume = []attest.Resume{{Count: 3}} }, link.KindChallenge},
		"another end":             {func(ev *attest.Evidence, _ *attest.Challenge) { ev.Challenge.NotAfter++ }, link.KindChallenge},
		"another scheme's answer": {func(ev *attest.Evidence, _ *attest.Challenge) { ev.Challenge.Scheme = attest.SchemeHYPA }, link.KindChallenge},
		"another host's answer":   {func(ev *attest.Evidence, _ *attest.Challenge) { ev.Host.ID = "other" }, link.KindChallenge},
		"a challenge by HYPA":     {func(_ *attest.Evidence, want *attest.Challenge) { want.Scheme = attest.SchemeHYPA }, link.KindMalformed},
		"an answer after the end": {func(ev *attest.Evidence, want *attest.Challenge) {
			want.NotAfter = softhost.Now.Unix() - 1
			ev.Challenge.NotAfter = want.NotAfter
		}, link.KindExpired},
		"VMs out of order":   {func(ev *attest.Evidence, _ *attest.Challenge) { ev.VMs[0], ev.VMs[1] = ev.VMs[1], ev.VMs[0] }, link.KindMalformed},
		"an oversized quote": {func(ev *attest.Evidence, _ *attest.Challenge) { ev.VMs[0].Quote.Attest = make([]byte, 1<<16) }, link.KindMalformed},
		"an exact answer in a row": {func(ev *attest.Evidence, want *attest.Challenge) {
			*ev = *h.Answer(h.Challenge(attest.SchemeSEPAExact, h.VMs[0]))
			*want = ev.Challenge
			ev.Inclusion = attest.Inclusion{Count: 2, Path: make([]attest.Digest, 1)}
		}, link.KindMalformed},
		"an exact answer without its VM": {func(ev *attest.Evidence, want *attest.Challenge) {
			*ev = *h.Answer(h.Challenge(attest.SchemeSEPAExact, h.VMs[0]))
			*want = ev.Challenge
			ev.VMs = nil
		}, link.KindMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			ev := h.Answer(h.Challenge(attest.SchemeSEPA))
			want := ev.Challenge
			c.change(ev, &want)
			l, err := sepa.Verify(ev, &want, softhost.Now)
			linktest.WantKind(t, err, c.kind)
			if l != nil {
				t.Error("a result beside the error")
			}
		})
	}
	for _, err := range []error{second(sepa.Verify(nil, h.Challenge(attest.SchemeSEPA), softhost.Now)), second(sepa.Verify(new(attest.Evidence), nil, softhost.Now)), second(sepa.Verify(new(attest.Evidence), new(attest.Challenge), time.Time{}))} {
		linktest.WantKind(t, err, link.KindMalformed)
	}
}

func second(_ *link.Linked, err error) error { return err }

// A host whose AK could sign anything, or is no AK.
func TestVerify_rejects_a_host_without_an_attestation_key(t *testing.T) {
	h := softhost.New("good", 1)
	for _, ak := range [][]byte{nil, h.TPM.EKPublic(), {1, 2, 3}} {
		ev := h.Answer(h.Challenge(attest.SchemeSEPA))
		ev.Host.AK = ak
		l := verify(t, ev)
		if !errors.Is(l.Host.Err, &quote.Error{Kind: quote.KindAK}) {
			t.Errorf("host error %v", l.Host.Err)
		}
		failed(t, l.VMs[0], link.KindHost)
	}
}

// Whatever bit of an encoded answer changes, the answer is refused, or the part that changed fails, or it was
// a part that no quote covers (names for display, logs that are replayed later).
func TestVerify_never_proves_other_values_than_the_honest_ones(t *testing.T) {
	h := softhost.New("good", 3)
	good := h.Answer(h.Challenge(attest.SchemeSEPA))
	want := good.Challenge
	b, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	honest := verify(t, good)
	rapid.Check(t, func(t *rapid.T) {
		b := bytes.Clone(b)
		bit := rapid.IntRange(0, 8*len(b)-1).Draw(t, "bit")
		b[bit/8] ^= 1 << (bit % 8)
		ev, err := attest.DecodeEvidence(b)
		if err != nil {
			return
		}
		l, err := sepa.Verify(ev, &want, softhost.Now)
		if err != nil {
			return
		}
		for i, v := range l.VMs {
			if v.Err() != nil {
				continue
			}
			if l.Host.Err != nil || v.UUID != honest.VMs[i].UUID || !bytes.Equal(v.EKName, honest.VMs[i].EKName) || !bytes.Equal(v.AKName, honest.VMs[i].AKName) || fmt.Sprint(v.Banks) != fmt.Sprint(honest.VMs[i].Banks) {
				t.Fatalf("bit %d: VM %v has other proven values", bit, v.UUID)
			}
		}
	})
}

// Whatever a guest sends, and whatever a lying host signs beside it: nothing panics, the other VM
// stands, and a VM is proven only with the quote that its vTPM made.
func FuzzVerify(f *testing.F) {
	h := softhost.New("good", 2)
	c := h.Challenge(attest.SchemeSEPA)
	honest := h.Answer(c).VMs[0]
	f.Add(honest.Quote.Attest, honest.Quote.Signature, honest.AK, honest.EK, []byte(honest.EKName), []byte(honest.AKName), honest.QuoteHash[:], byte(1), uint64(1), byte(10), honest.PCRs[0].Get(10), false)
	f.Add(honest.Quote.Attest, honest.Quote.Signature, honest.AK, honest.EK, []byte{}, []byte{0, 11}, []byte{}, byte(3), uint64(0), byte(30), []byte{}, true)
	f.Fuzz(func(t *testing.T, attested, signature, ak, ek, ekName, akName, hash []byte, status byte, epoch uint64, pcr byte, value []byte, sign bool) {
		ev := h.Answer(c)
		vm := &ev.VMs[0]
		vm.Quote, vm.AK, vm.EK, vm.EKName, vm.AKName = attest.Quote{Attest: attested, Signature: signature}, ak, ek, ekName, akName
		vm.QuoteHash, vm.Status, vm.Epoch = attest.Digest{}, attest.VMStatus(status), epoch
		copy(vm.QuoteHash[:], hash)
		vm.PCRs[0].PCRs[10] = attest.PCR{Index: pcr, Value: value}
		if sign {
			resign(h, ev)
		}
		l, err := sepa.Verify(ev, c, softhost.Now)
		if (l == nil) != (err != nil) {
			t.Fatalf("%v, %v", l, err)
		}
		if l == nil {
			return
		}
		if sign && (l.Host.Err != nil || l.VMs[1].Err() != nil && len(akName) > 0 && len(ekName) > 0 && !errors.Is(l.VMs[1].LinkErr, &link.Error{Kind: link.KindClone})) {
			t.Fatalf("the other VM failed: %v, %v", l.Host.Err, l.VMs[1].Err())
		}
		if v := l.VMs[0]; v.Err() == nil && (!bytes.Equal(attested, honest.Quote.Attest) || !bytes.Equal(v.AKName, honest.AKName) || status != 1) {
			t.Fatalf("proven: %+v", v)
		}
	})
}

func BenchmarkVerify100VMs(b *testing.B) {
	h := softhost.New("good", 100)
	ev := h.Answer(h.Challenge(attest.SchemeSEPA))
	for b.Loop() {
		if l := verify(b, ev); l.Err() != nil {
			b.Fatal(l.Err())
		}
	}
}
