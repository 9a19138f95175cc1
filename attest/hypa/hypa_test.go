package hypa_test

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/hypa"
	"virt-attest/attest/internal/linktest"
	"virt-attest/attest/link"
	"virt-attest/internal/softhost"
	"virt-attest/internal/softtpm"
)

var verify = linktest.Verify(hypa.Verify).Linked

func TestVerify_proves_the_vPCRs_of_every_VM_by_one_host_quote(t *testing.T) {
	h := softhost.New("good", 3)
	h.VMs[1].Banks = softhost.Banks("four", attest.SHA1, attest.SHA256, attest.SHA384, attest.SHA512)
	h.VMs[2].IMA = attest.LogSegment{} // its guest agent is absent: the vPCRs are there all the same
	l := verify(t, h.Answer(h.Challenge(attest.SchemeHYPA)))
	if l.Err() != nil || len(l.VMs) != 3 {
		t.Fatalf("%+v: %v", l, l.Err())
	}
	for i, v := range l.VMs {
		if len(v.Banks) != len(h.VMs[i].Banks) || v.Quote != nil || len(v.EKName) == 0 || v.Epoch != 1 {
			t.Errorf("VM %d: %+v", i, v)
		}
		for _, want := range h.VMs[i].Banks {
			b, _ := attest.Bank(v.Banks, want.Alg)
			for p := range uint8(attest.PCRCount) {
				if !bytes.Equal(b.Get(p), want.Get(p)) {
					t.Errorf("VM %d, bank %v, PCR %d", i, want.Alg, p)
				}
			}
		}
	}
}

// What was changed between the pTPM and here breaks the host's quote (attacks 3, 5, 26, 29, 59; GHSA-r2h5-3hgw-8j34).
func TestVerify_rejects_everything_if(t *testing.T) {
	h := softhost.New("good", 3)
	for name, change := range map[string]func(ev *attest.Evidence){
		"a vPCR is another":                  func(ev *attest.Evidence) { ev.VMs[0].PCRs[0].PCRs[10].Value[0] ^= 1 },
		"a bank is left out":                 func(ev *attest.Evidence) { ev.VMs[0].PCRs = nil },
		"a PCR is left out":                  func(ev *attest.Evidence) { ev.VMs[0].PCRs[0].PCRs = ev.VMs[0].PCRs[0].PCRs[:23] },
		"a log is truncated (26)":            func(ev *attest.Evidence) { ev.VMs[0].IMA.Data = ev.VMs[0].IMA.Data[:5] },
		"a log is edited (29)":               func(ev *attest.Evidence) { ev.VMs[0].IMA.Data[7] ^= 1 },
		"a log is left out":                  func(ev *attest.Evidence) { ev.VMs[0].IMA = attest.LogSegment{} },
		"a log begins elsewhere":             func(ev *attest.Evidence) { ev.VMs[0].IMA.From++ },
		"a log has another count":            func(ev *attest.Evidence) { ev.VMs[0].IMA.Count-- },
		"a log is of another boot":           func(ev *attest.Evidence) { ev.VMs[0].IMA.BootID = "x" },
		"a log has another template hash":    func(ev *attest.Evidence) { ev.VMs[0].IMA.TemplateHash = attest.SHA256 },
		"an epoch is another":                func(ev *attest.Evidence) { ev.VMs[0].Epoch-- },
		"a status is another":                func(ev *attest.Evidence) { ev.VMs[0].Status = attest.VMNoTPM },
		"an identity is another (GHSA-r2h5)": func(ev *attest.Evidence) { ev.VMs[0].EKName, ev.VMs[0].EK = ev.VMs[1].EKName, ev.VMs[1].EK },
		"two VMs are exchanged": func(ev *attest.Evidence) {
			ev.VMs[0], ev.VMs[1] = ev.VMs[1], ev.VMs[0]
			ev.VMs[0].UUID, ev.VMs[1].UUID = ev.VMs[1].UUID, ev.VMs[0].UUID
		},
		"a VM is left out":           func(ev *attest.Evidence) { ev.VMs = ev.VMs[1:] },
		"the host's PCRs are others": func(ev *attest.Evidence) { ev.Host.PCRs[0].PCRs[0].Value[0] ^= 1 },
		"the host's quote is an earlier one (5)": func(ev *attest.Evidence) {
			ev.Host.Quote = h.Answer(h.Challenge(attest.SchemeHYPA, h.VMs[0])).Host.Quote
		},
		"the host's quote was made for SEPA": func(ev *attest.Evidence) { ev.Host.Quote = h.Answer(h.Challenge(attest.SchemeSEPA)).Host.Quote },
	} {
		t.Run(name, func(t *testing.T) {
			ev := h.Answer(h.Challenge(attest.SchemeHYPA))
			change(ev)
			l := verify(t, ev)
			if l.Host.Err == nil || l.Host.Quote != nil || l.Err() == nil {
				t.Errorf("host: %+v", l.Host)
			}
			for _, v := range l.VMs {
				linktest.WantKind(t, v.LinkErr, link.KindHost)
				if v.Banks != nil || v.EKName != nil {
					t.Error("something is handed out as proven")
				}
			}
		})
	}
}

// resign lets the host sign whatever ev says: what a host can do that lies or has a fault.
func resign(h *softhost.Host, ev *attest.Evidence) {
	item := binding.Item(ev.Challenge.Scheme, ev.Challenge.Nonce, softhost.Body(ev.Challenge.Scheme, ev.VMs))
	extra := binding.Round([]attest.Digest{item})
	ev.Inclusion = binding.Include([]attest.Digest{item}, 0)
	ev.Host.Quote = h.TPM.Quote(extra[:], h.Banks)
}

func TestVerify_rejects_one_VM_and_keeps_the_others_if_the_host_signed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(vm *attest.VMEvidence)
		kind   link.Kind
	}{
		"no vPCRs":      {func(vm *attest.VMEvidence) { vm.PCRs = nil }, link.KindPCRs},
		"an empty bank": {func(vm *attest.VMEvidence) { vm.PCRs[0].PCRs = nil }, link.KindPCRs},
		"a bank without PCR 10": {func(vm *attest.VMEvidence) {
			vm.PCRs[0].PCRs = append(vm.PCRs[0].PCRs[:10:10], vm.PCRs[0].PCRs[11:]...)
		}, link.KindPCRs},
		"the SHA-1 bank only (22)": {func(vm *attest.VMEvidence) { vm.PCRs = softhost.Banks("x", attest.SHA1) }, link.KindPCRs},
		"no endorsement key":       {func(vm *attest.VMEvidence) { vm.EKName, vm.EK = nil, nil }, link.KindIdentity},
		"another key's name":       {func(vm *attest.VMEvidence) { vm.EKName[5] ^= 1 }, link.KindIdentity},
		"that the vTPM is dead":    {func(vm *attest.VMEvidence) { vm.Status = attest.VMNoTPM }, link.KindNoTPM},
		"that it does not run":     {func(vm *attest.VMEvidence) { vm.Status = attest.VMNotRunning }, link.KindNotRunning},
	} {
		t.Run(name, func(t *testing.T) {
			h := softhost.New("good", 3)
			ev := h.Answer(h.Challenge(attest.SchemeHYPA))
			c.change(&ev.VMs[1])
			resign(h, ev)
			l := verify(t, ev)
			linktest.WantKind(t, l.VMs[1].LinkErr, c.kind)
			if l.VMs[1].Banks != nil || l.Host.Err != nil || l.VMs[0].Err() != nil || l.VMs[2].Err() != nil {
				t.Errorf("%+v", l)
			}
		})
	}
}

// Attack 46: a copy of a vTPM on the same host.
func TestVerify_rejects_both_VMs_that_share_a_vTPM(t *testing.T) {
	h := softhost.New("good", 3)
	h.VMs[2].TPM = h.VMs[0].TPM
	l := verify(t, h.Answer(h.Challenge(attest.SchemeHYPA)))
	linktest.WantKind(t, l.VMs[0].LinkErr, link.KindClone)
	linktest.WantKind(t, l.VMs[2].LinkErr, link.KindClone)
	if l.VMs[1].Err() != nil {
		t.Error(l.VMs[1].Err())
	}
}

func TestVerify_reports_a_VM_that_was_asked_for_and_left_out(t *testing.T) {
	h := softhost.New("good", 2)
	ev := h.Answer(h.Challenge(attest.SchemeHYPA, h.VMs...))
	ev.VMs = ev.VMs[:1]
	resign(h, ev)
	l := verify(t, ev)
	if len(l.VMs) != 2 || l.VMs[0].Err() != nil {
		t.Fatalf("%+v", l)
	}
	linktest.WantKind(t, l.VMs[1].LinkErr, link.KindMissing)
}

func TestVerify_refuses_another_schemes_answer(t *testing.T) {
	h := softhost.New("good", 1)
	ev := h.Answer(h.Challenge(attest.SchemeSEPA))
	_, err := hypa.Verify(ev, &ev.Challenge, softhost.Now)
	linktest.WantKind(t, err, link.KindMalformed)
	want := ev.Challenge
	want.Scheme = attest.SchemeHYPA
	_, err = hypa.Verify(ev, &want, softhost.Now)
	linktest.WantKind(t, err, link.KindChallenge)
}

func TestEncode_is_the_same_for_banks_in_any_order(t *testing.T) {
	vm := attest.VMEvidence{PCRs: softhost.Banks("x", attest.SHA256, attest.SHA1)}
	swapped := attest.VMEvidence{PCRs: []attest.PCRBank{vm.PCRs[1], vm.PCRs[0]}}
	a, b := hypa.SnapshotOf([]attest.VMEvidence{vm}), hypa.SnapshotOf([]attest.VMEvidence{swapped})
	if !bytes.Equal(a.Encode(), b.Encode()) || vm.PCRs[0].Alg != attest.SHA256 {
		t.Error("the order of banks matters, or the evidence was changed")
	}
}

// Two snapshots that differ in anything have other encodings: fields cannot flow into each other.
func TestEncode_differs_for_snapshots_that_differ(t *testing.T) {
	one := func(t *rapid.T, label string) attest.VMEvidence {
		vm := attest.VMEvidence{
			UUID: attest.UUID{rapid.Byte().Draw(t, label+"uuid")}, Status: attest.VMStatus(rapid.IntRange(1, 2).Draw(t, label+"status")), Epoch: rapid.Uint64Range(0, 2).Draw(t, label+"epoch"),
			EKName: rapid.SliceOfN(rapid.ByteRange(0, 1), 0, 3).Draw(t, label+"ek"),
			IMA:    attest.LogSegment{BootID: rapid.StringN(0, 2, 2).Draw(t, label+"boot"), From: rapid.Uint64Range(0, 1).Draw(t, label+"from")},
		}
		for range rapid.IntRange(0, 1).Draw(t, label+"banks") {
			b := attest.PCRBank{Alg: attest.SHA256}
			for i := range uint8(rapid.IntRange(0, 2).Draw(t, label+"pcrs")) {
				b.PCRs = append(b.PCRs, attest.PCR{Index: i, Value: bytes.Repeat([]byte{rapid.ByteRange(0, 1).Draw(t, label+"value")}, 32)})
			}
			vm.PCRs = append(vm.PCRs, b)
		}
		return vm
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := one(t, "a "), one(t, "b ")
		x, y := hypa.Body(hypa.SnapshotOf([]attest.VMEvidence{a})), hypa.Body(hypa.SnapshotOf([]attest.VMEvidence{b}))
		if same(a, b) != (x == y) {
			t.Fatal("digests do not tell snapshots apart")
		}
		if x == hypa.Body(hypa.SnapshotOf([]attest.VMEvidence{a, a})) || x == hypa.Body(nil) {
			t.Fatal("the number of VMs does not matter")
		}
	})
}

func same(a, b attest.VMEvidence) bool {
	x, err1 := (&attest.Evidence{VMs: []attest.VMEvidence{a}}).Encode()
	y, err2 := (&attest.Evidence{VMs: []attest.VMEvidence{b}}).Encode()
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// Whatever a host sends, and whatever it signs: nothing panics, the other VM stands where the host's quote
// does, and a VM is proven only with whole banks and the key that was signed.
func FuzzVerify(f *testing.F) {
	h := softhost.New("good", 2)
	c := h.Challenge(attest.SchemeHYPA)
	honest := h.Answer(c).VMs[0]
	f.Add(honest.EK, []byte(honest.EKName), byte(1), uint64(1), uint16(attest.SHA256), byte(10), honest.PCRs[0].Get(10), "boot", uint64(0), uint64(1), []byte("entry"), true)
	f.Add([]byte{}, []byte{0, 11}, byte(4), uint64(9), uint16(attest.SHA1), byte(24), []byte{}, "", uint64(1)<<63, uint64(7), []byte{}, false)
	f.Fuzz(func(t *testing.T, ek, ekName []byte, status byte, epoch uint64, alg uint16, pcr byte, value []byte, boot string, from, count uint64, data []byte, sign bool) {
		ev := h.Answer(c)
		vm := &ev.VMs[0]
		vm.EK, vm.EKName, vm.Status, vm.Epoch = ek, ekName, attest.VMStatus(status), epoch
		vm.PCRs[0].Alg, vm.PCRs[0].PCRs[10] = attest.Alg(alg), attest.PCR{Index: pcr, Value: value}
		vm.IMA = attest.LogSegment{BootID: boot, TemplateHash: attest.Alg(alg), From: from, Count: count, Data: data}
		if sign {
			resign(h, ev)
		}
		l, err := hypa.Verify(ev, c, softhost.Now)
		if (l == nil) != (err != nil) {
			t.Fatalf("%v, %v", l, err)
		}
		if l == nil {
			return
		}
		if sign && l.Host.Err != nil || !sign && l.Host.Err == nil && fmt.Sprint(*vm) != fmt.Sprint(h.Answer(c).VMs[0]) {
			t.Fatalf("signed: %v, host error: %v", sign, l.Host.Err)
		}
		if v := l.VMs[0]; v.Err() == nil && (len(v.Banks[0].PCRs) != attest.PCRCount || status != 1 || !bytes.Equal(softtpm.Name(ek), ekName)) {
			t.Fatalf("proven: %+v", v)
		}
	})
}

func BenchmarkVerify100VMs(b *testing.B) {
	h := softhost.New("good", 100)
	ev := h.Answer(h.Challenge(attest.SchemeHYPA))
	for b.Loop() {
		if l := verify(b, ev); l.Err() != nil {
			b.Fatal(l.Err())
		}
	}
}
