package tpmtest_test

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/internal/tpmtest"
)

func ek(t *testing.T, tpm transport.TPM) []byte {
	t.Helper()
	rsp, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010001)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return rsp.Name.Buffer
}

func pcr16(t *testing.T, tpm transport.TPM) []byte {
	t.Helper()
	sel := tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(16)}}}
	rsp, err := tpm2.PCRRead{PCRSelectionIn: sel}.Execute(tpm)
	if err != nil || len(rsp.PCRValues.Digests) != 1 {
		t.Fatal(rsp, err)
	}
	return rsp.PCRValues.Digests[0].Buffer
}

func TestNew_gives_clones_and_strangers_as_asked(t *testing.T) {
	a, clone, other := tpmtest.New(t), tpmtest.New(t), tpmtest.New(t, tpmtest.Identity(1))
	if !bytes.Equal(ek(t, a), ek(t, clone)) || bytes.Equal(ek(t, a), ek(t, other)) {
		t.Fatal("identity 0 is not the same EK twice, or identity 1 is not another")
	}
}

func TestPowerCycle_resets_PCRs_and_keeps_the_connection(t *testing.T) {
	tpm := tpmtest.New(t)
	extend := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(16), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}
	if _, err := extend.Execute(tpm); err != nil {
		t.Fatal(err)
	}
	before := pcr16(t, tpm)
	tpm.PowerCycle(t)
	if after := pcr16(t, tpm); bytes.Equal(before, after) || !bytes.Equal(after, make([]byte, 32)) {
		t.Fatalf("PCR 16 after a power cycle: %x", after)
	}
}

func TestSocket_serves_one_client_after_another(t *testing.T) {
	p := tpmtest.Start(t)
	for range 3 {
		c, err := p.Dial()
		if err != nil {
			t.Fatal(err)
		}
		ek(t, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
