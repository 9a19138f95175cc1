package evidence_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/link"
	"virt-attest/attest/quote"
	"virt-attest/attest/verify"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
	"virt-attest/verifier/host/hosttest"
)

func akOf(t *testing.T, v *hosttest.VTPM) []byte {
	t.Helper()
	ak, err := tpmkeys.CreateAK(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := ak.Close(); err != nil {
		t.Fatal(err)
	}
	return ak.Public
}

// A VM that was asked over the network: the host only tells whether its vTPM made the quote, whoever sent it.
func TestBinding_for_a_link_asks_the_store_and_not_the_guest(t *testing.T) {
	h := hosttest.New(t)
	v := h.StartVMs(t, 1)[0]
	v.Do(func(v *hosttest.VM) {
		v.Agent = func(context.Context, uint8, []byte) ([]byte, error) {
			t.Error("the guest was asked")
			return nil, errSulk
		}
	})
	pcrs := []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0, 10}}}
	clone := hosttest.NewVTPM(t, tpmtest.Identity(3))
	for _, c := range []struct {
		name          string
		crosses       bool // the VM's own vTPM quotes
		answers, says *hosttest.VTPM
		want          link.Kind
	}{
		{"the VM itself", true, v.VTPM, v.VTPM, ""},
		{"a clone elsewhere, and the VM is silent", false, clone, clone, link.KindNoRecord},
		{"a clone elsewhere, while the VM quotes too", true, clone, v.VTPM, link.KindHash},
		{"the VM, under the name of another key", true, v.VTPM, clone, link.KindIdentity},
	} {
		ch := h.Challenge(t, attest.SchemeSEPA, v.UUID)
		said, err := quote.ParseAK(akOf(t, c.says))
		if err != nil {
			t.Fatal(err)
		}
		ch.Signer = said.Name()
		n := binding.VMNonce(attest.SchemeSEPA, ch.Nonce, v.UUID)
		var q attest.Quote
		var banks []attest.PCRBank
		if c.crosses {
			if q, banks, err = v.Quote(n[:], pcrs); err != nil {
				t.Fatal(err)
			}
		}
		if c.answers != v.VTPM {
			q = attest.Quote{Attest: []byte("another"), Signature: []byte("quote")}
		}
		ev, err := h.Engine.Answer(t.Context(), ch)
		if err != nil {
			t.Fatal(err)
		}
		if len(ev.VMs) != 1 || ev.VMs[0].IMA.Data != nil || ev.VMs[0].Agent != (attest.AgentInfo{}) {
			t.Errorf("%s: more than a link: %+v", c.name, ev.VMs)
		}
		ev.VMs[0].Quote, ev.VMs[0].PCRs, ev.VMs[0].AK = q, banks, akOf(t, c.answers)
		l, err := verify.Evidence(ev, ch, time.Now())
		if err != nil || l.Host.Err != nil {
			t.Fatal(err, l.Host.Err)
		}
		got := l.VMs[0].Err()
		if c.want == "" && got != nil || c.want != "" && !errors.Is(got, &link.Error{Kind: c.want}) {
			t.Errorf("%s: %v, want %q", c.name, got, c.want)
		}
	}
}
