package appraise_test

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

// full gives a machine's state with everything in it.
func full(t *testing.T) appraise.Machine {
	t.Helper()
	s := signer(t)
	w := newWorld(t)
	w.edit(func(sub *appraise.Subject) {
		sub.RIMs = rim.Set{goldenRIM(t, newBox(), "x", func(f *rim.File) {
			f.Exclude = []string{"/var/lib/**"}
			f.IMA[".ima"] = []string{digestOf(s.Cert)}
		})}
		sub.Policy.Signatures, sub.Policy.Keyrings, sub.Policy.AllowKexec = appraise.SignaturesAccept, []string{".ima"}, true
	})
	w.vm.ima.Buffer(".ima", s.Cert)
	w.vm.ima.File("/tmp/evil\n\xff", "evil")
	w.vm.ima.Signed("/usr/bin/bash", "bash", s.Sign("another"))
	w.vm.ima.Violation("/var/log/wtmp")
	w.vm.ima.File("/var/lib/a", "1")
	w.round()
	w.vm.clock -= 500
	w.round()
	m := w.in.VMs[vm1].Prior
	if m.Boot == nil || len(m.Keys) != 1 || m.Unverified == nil || m.Setback == nil || len(m.Findings) != 2 || m.Rules == "" || len(m.Excluded) != 1 {
		t.Fatalf("%+v", m)
	}
	m.Resync, m.More, m.Replay.Padded = true, 7, []attest.Alg{attest.SHA384}
	return m
}

func TestEncodeMachine_keeps_everything_in_little_space(t *testing.T) {
	m := full(t)
	b, err := appraise.EncodeMachine(m)
	if err != nil {
		t.Fatal(err)
	}
	back, err := appraise.DecodeMachine(b)
	if err != nil || !reflect.DeepEqual(m, back) {
		t.Errorf("%v\n%+v\n%+v", err, m, back)
	}
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not tested", v.Type().Field(i).Name)
		}
	}
	w := newWorld(t)
	w.expect(trusted)
	if b, err := appraise.EncodeMachine(w.in.VMs[vm1].Prior); err != nil || len(b) > 400 {
		t.Errorf("%d bytes for a machine that is as it should be", len(b))
	}
}

// Strict typing once refused the database rows of an older version: nothing could register any more.
func TestDecodeMachine_reads_what_every_earlier_version_has_stored_CVE_2025_1057(t *testing.T) {
	old, err := os.ReadFile("testdata/machines/machine-1.json")
	if err != nil {
		t.Fatal(err)
	}
	m, err := appraise.DecodeMachine(old)
	if err != nil {
		t.Fatal(err)
	}
	if m.Host != "host-id-1" || m.Epoch != 1 || m.Counters.Clock != 1010 || m.Replay.Count != 8 || m.Replay.BootID != "boot-1" || len(m.Replay.PCRs) != 1 ||
		len(m.RIMs) != 1 || len(m.Findings) != 4 || string(m.Findings[0].Path) != "/tmp/evil\n\xff" || m.Excluded["/var/lib/**"] != 1 || m.Setback.Reset != 3 || m.Time.Year() != 2026 {
		t.Errorf("%+v", m)
	}
	again, err := appraise.EncodeMachine(m)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := appraise.DecodeMachine(again); err != nil || !reflect.DeepEqual(m, back) {
		t.Errorf("%v\n%+v\n%+v", err, m, back)
	}
}

func TestEncodeMachine_writes_the_golden_encoding(t *testing.T) {
	m := full(t)
	m.Keys, m.RIMs, m.Boot.Basis = [][]byte{{1, 2, 3}}, []attest.Digest{{1}}, attest.Digest{2} // a new key each time
	m.Replay.PCRs[0].PCRs[0].Value = bytes.Repeat([]byte{3}, 32)
	got, err := appraise.EncodeMachine(m)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "machines", "machine-2.cbor")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the encoding of a stored state has changed: write a version 3 and keep reading this one\n%x\n%x", got, want)
	}
}

// A state that an older version left is gone on from, without asking for the whole log.
func TestAppraise_goes_on_from_a_state_of_version_1(t *testing.T) {
	w := newWorld(t)
	w.expect(trusted)
	m := w.in.VMs[vm1].Prior
	m.Boot = nil
	w.edit(func(s *appraise.Subject) { s.Prior = m })
	if r := m.Resume(vm1, w.in.VMs[vm1].RIMs, appraise.Policy{}); r.Count != 3 || r.Boot {
		t.Errorf("%+v", r)
	}
	w.vm.ima.File("/usr/bin/cron", "cron")
	w.expect(trusted)
}

// benchMachine is the state of a VM that runs as it should, with some excluded files.
func benchMachine(b *testing.B) appraise.Machine {
	w := newWorld(&testing.T{})
	w.vm.bootID = "6b1e2c1e-2f0e-4a52-8a10-6e1c4b1f0a57"
	w.round()
	m := w.in.VMs[vm1].Prior
	m.Excluded = map[string]uint64{"/var/lib/**": 12, "/var/cache/**": 3}
	if m.Replay.Count == 0 {
		b.Fatal("no state")
	}
	return m
}

// BenchmarkEncodeMachine is what storing the state of a machine costs each round.
func BenchmarkEncodeMachine(b *testing.B) {
	m := benchMachine(b)
	b.ReportAllocs()
	for b.Loop() {
		enc, err := appraise.EncodeMachine(m)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(enc)), "B/state")
	}
}

// BenchmarkDecodeMachine is what reading it costs.
func BenchmarkDecodeMachine(b *testing.B) {
	enc, err := appraise.EncodeMachine(benchMachine(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := appraise.DecodeMachine(enc); err != nil {
			b.Fatal(err)
		}
	}
}
