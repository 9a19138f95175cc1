package cli

import (
	"testing"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/directproto"
	"virt-attest/internal/softhost"
	"virt-attest/verifier/api"
)

// Who asks a VM directly does not have to believe the Verifier that the host signed for the very quote that came.
func TestCheckLink_believes_the_hosts_TPM_and_no_word_of_the_Verifier(t *testing.T) {
	h := softhost.New("good", 2)
	c := h.Challenge(attest.SchemeSEPA)
	id := h.Answer(c).VMs[0].UUID
	c.VMs = []attest.UUID{id}
	for name, change := range map[string]func(*attest.Evidence, *api.DirectChallenge, *directproto.Answer){
		"":                       func(*attest.Evidence, *api.DirectChallenge, *directproto.Answer) {},
		"another quote":          func(_ *attest.Evidence, _ *api.DirectChallenge, a *directproto.Answer) { a.Quote.Parameters[9] ^= 1 },
		"another challenge":      func(_ *attest.Evidence, d *api.DirectChallenge, _ *directproto.Answer) { d.Nonce[0] ^= 1 },
		"another VM":             func(_ *attest.Evidence, d *api.DirectChallenge, _ *directproto.Answer) { d.VM[0] ^= 1 },
		"a leaf that was edited": func(e *attest.Evidence, _ *api.DirectChallenge, _ *directproto.Answer) { e.VMs[0].Epoch++ },
		"no quote of the host's": func(e *attest.Evidence, _ *api.DirectChallenge, _ *directproto.Answer) { e.Host.Quote = attest.Quote{} },
		"no record": func(e *attest.Evidence, _ *api.DirectChallenge, _ *directproto.Answer) {
			e.VMs[0].Status, e.VMs[0].QuoteHash = attest.VMNoRecord, attest.Digest{}
		},
	} {
		ev := h.Answer(c)
		ch := &api.DirectChallenge{VM: id, Nonce: c.Nonce}
		got := &directproto.Answer{Quote: agentproto.Quoted{Parameters: ev.VMs[0].Quote.Parameters()}}
		change(ev, ch, got)
		b, err := ev.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := checkLink(b, ch, got, softhost.Now); (err == nil) != (name == "") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := checkLink(nil, &api.DirectChallenge{}, &directproto.Answer{}, softhost.Now); err == nil {
		t.Error("no evidence is taken for some")
	}
}
