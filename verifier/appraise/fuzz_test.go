package appraise_test

import (
	"bytes"
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
