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
