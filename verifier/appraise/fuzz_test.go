package appraise_test

import (
	"bytes"
	"os"
	"testing"

	"virt-attest/attest"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/appraise"
)

// FuzzAppraise lets a guest send any logs beside a quote that is fixed. TRUSTED must mean
// that the log holds the template data that was extended, in order; nothing is ever a fault of ours.
func FuzzAppraise(f *testing.F) {
	good := newBox()
	f.Add(good.ima.Data, good.boot.Data, uint64(3), uint64(0))
	evil := newBox()
	evil.ima.File("/tmp/evil", "x")
	f.Add(evil.ima.Data, good.boot.Data[:100], uint64(4), uint64(0))
	f.Add(measuretest.Load("ima-sig").IMA.Data, measuretest.Load("ovmf").Boot, uint64(8), uint64(1))
	var want [][]byte
	for _, p := range []string{"init", "bash"} {
		want = append(want, []byte("/usr/bin/"+p+"\x00"))
	}
	f.Fuzz(func(t *testing.T, ima, boot []byte, count, from uint64) {
		w := newWorld(t)
		w.change = func(in *appraise.Input) {
			vm := &in.Evidence.VMs[0]
			vm.IMA = attest.LogSegment{BootID: "boot-1", TemplateHash: attest.SHA1, From: from, Count: count, Data: ima}
			vm.BootLog = boot
		}
		r := w.round().VMs[0].Result
		switch r.State {
		case appraise.Trusted:
			rest := ima
			for _, p := range want {
				at := bytes.Index(rest, p)
				if at < 0 {
					t.Fatalf("trusted without %s in its log", p)
				}
				rest = rest[at:]
			}
		case appraise.Error:
			t.Fatal(texts(r))
		}
	})
}

// FuzzAppraise_policies is FuzzAppraise with everything on that a policy can ask for: no log makes a machine whose
// quote shows an unlisted program trusted, whatever it says of signatures, keyrings and boot events.
func FuzzAppraise_policies(f *testing.F) {
	s := signer(f)
	bad := newBox()
	bad.ima.Buffer(".platform", s.Cert)
	bad.ima.Signed("/tmp/evil", "evil", signer(f).Sign("evil"))
	f.Add(bad.ima.Data, bad.boot.Data, bad.ima.Count)
	relabelled := bytes.Replace(bad.ima.Data, []byte("ima-sig"), []byte("ima-buf"), 1)
	f.Add(relabelled, bad.boot.Data, bad.ima.Count)
	f.Fuzz(func(t *testing.T, ima, boot []byte, count uint64) {
		w := signing(t, appraise.SignaturesAccept, s)
		w.vm = bad
		w.edit(func(s *appraise.Subject) {
			s.Policy.IgnoreKeyrings, s.Policy.BootEvents = []string{".platform"}, rules("pc")
		})
		w.change = func(in *appraise.Input) {
			vm := &in.Evidence.VMs[0]
			vm.IMA = attest.LogSegment{BootID: "boot-1", TemplateHash: attest.SHA1, Count: count, Data: ima}
			vm.BootLog = boot
		}
		if r := w.round().VMs[0].Result; r.State == appraise.Trusted || r.State == appraise.Error {
			t.Fatalf("%s\n%s", r.State, texts(r))
		}
	})
}

// FuzzDecodeMachine: a state that decodes has an encoding that decodes to the same.
func FuzzDecodeMachine(f *testing.F) {
	w := newWorld(&testing.T{})
	w.vm.ima.File("/tmp/evil", "x")
	w.round()
	b, err := appraise.EncodeMachine(w.in.VMs[vm1].Prior)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, name := range []string{"machine-1.json", "machine-2.cbor"} {
		stored, err := os.ReadFile("testdata/machines/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(stored)
	}
	f.Add([]byte(`{"version":1,"replay":{"boot_id":"","count":3,"pcrs":[{"alg":"sha256","pcrs":[{"index":10,"value":"00"}]}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := appraise.DecodeMachine(b)
		if err != nil {
			return
		}
		once, err := appraise.EncodeMachine(m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := appraise.DecodeMachine(once)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := appraise.EncodeMachine(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%s\n%s (%v)", once, twice, err)
		}
		// Whatever a damaged state says, an appraisal with it ends in a verdict.
		w := newWorld(t)
		w.edit(func(s *appraise.Subject) { s.Prior = m })
		w.round()
	})
}
