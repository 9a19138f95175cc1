package measurement_test

import (
	"bytes"
	"errors"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
)

func TestFold_reaches_the_values_that_a_real_TPM_had(t *testing.T) {
	found := 0
	for _, name := range measuretest.Names() {
		boot := measuretest.Load(name)
		ima := boot.IMA
		var algs []attest.Alg
		for _, b := range boot.PCRs {
			algs = append(algs, b.Alg)
		}
		proof, err := measurement.Replay(ima, measurement.State{}, boot.PCRs, measurement.Options{AllowPadded: true})
		if err != nil {
			t.Fatal(err)
		}
		f, err := measurement.NewFold(ima.TemplateHash, algs...)
		if err != nil {
			t.Fatal(err)
		}
		rest := ima.Data
		for range proof.State.Count {
			n, err := f.Next(rest)
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		for _, b := range boot.PCRs {
			if v := f.Value(b.Alg); b.Alg == attest.SHA256 {
				found++
				if !bytes.Equal(v, b.Get(measurement.IMAPCR)) {
					t.Errorf("%s: %v bank is %x", name, b.Alg, v)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no boot was folded")
	}
}

func TestFold_refuses_what_is_no_entry(t *testing.T) {
	f, err := measurement.NewFold(attest.SHA1, attest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Next(make([]byte, 10)); !errors.Is(err, measurement.ErrIncomplete) {
		t.Error(err)
	}
	if _, err := f.Next(bytes.Repeat([]byte{0x7f}, 64)); !errors.Is(err, measurement.ErrMalformed) {
		t.Error(err)
	}
	if v := f.Value(attest.SHA256); !bytes.Equal(v, make([]byte, 32)) || f.Value(attest.SHA512) != nil {
		t.Errorf("%x", v)
	}
	if _, err := measurement.NewFold(attest.SHA1, 0x99); err == nil {
		t.Error("an unknown bank is folded")
	}
}

func TestMoment_finds_the_entry_after_which_a_quote_was_made(t *testing.T) {
	boot := measuretest.Load(measuretest.Names()[0])
	f, err := measurement.NewFold(boot.IMA.TemplateHash, attest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for range 3 {
		n, err := f.Next(boot.IMA.Data[at:])
		if err != nil {
			t.Fatal(err)
		}
		at += n
	}
	want := f.Value(attest.SHA256)
	read := []attest.PCRBank{{Alg: attest.SHA256, PCRs: []attest.PCR{{Index: 0, Value: make([]byte, 32)}, {Index: 10, Value: make([]byte, 32)}}}}
	covers := func(b []attest.PCRBank) bool { return bytes.Equal(b[0].Get(measurement.IMAPCR), want) }
	m, err := measurement.NewMoment(boot.IMA.TemplateHash, read, covers)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Look(nil); got != nil || err != nil {
		t.Errorf("before any entry: %v, %v", got, err)
	}
	got, err := m.Look(boot.IMA.Data)
	if err != nil || got == nil || !bytes.Equal(got[0].Get(measurement.IMAPCR), want) || !bytes.Equal(got[0].Get(0), read[0].Get(0)) {
		t.Errorf("%v, %v", got, err)
	}
	if !bytes.Equal(read[0].Get(measurement.IMAPCR), make([]byte, 32)) {
		t.Error("what was read was changed")
	}
	never, err := measurement.NewMoment(boot.IMA.TemplateHash, read, func([]attest.PCRBank) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if got, err := never.Look(boot.IMA.Data); got != nil || err != nil {
		t.Errorf("another PCR moved: %v, %v", got, err)
	}
	if _, err := never.Look([]byte{1, 2, 3}); err == nil {
		t.Error("what is no entry is folded")
	}
}
