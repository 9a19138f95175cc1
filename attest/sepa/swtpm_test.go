package sepa_test

import (
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/link"
	"virt-attest/attest/quote"
	"virt-attest/attest/sepa"
	"virt-attest/internal/softhost"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

var selection = []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}}

// machine is a real TPM with its keys.
type machine struct {
	tpm transport.TPM
	ak  *tpmkeys.AK
	ek  []byte
}

func newMachine(t *testing.T, identity int) *machine {
	t.Helper()
	tpm := tpmtest.New(t, tpmtest.Identity(identity))
	ak, err := tpmkeys.CreateAK(tpm)
	if err != nil {
		t.Fatal(err)
	}
	ek, err := tpmkeys.ReadEK(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return &machine{tpm: tpm, ak: ak, ek: ek}
}

func (m *machine) quote(t *testing.T, nonce []byte) (attest.Quote, []attest.PCRBank) {
	t.Helper()
	q, values, err := tpmkeys.Quote(m.tpm, m.ak, nonce, selection)
	if err != nil {
		t.Fatal(err)
	}
	return q, values
}

func (m *machine) run(t *testing.T, program string) {
	t.Helper()
	d := softhost.Banks(program, attest.SHA256)[0].Get(0)
	cmd := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: 10, Auth: tpm2.PasswordAuth(nil)}, Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: d}}}}
	if _, err := cmd.Execute(m.tpm); err != nil {
		t.Fatal(err)
	}
}

// attestVM goes through SEPA's steps 1 to 4 with real TPMs: vtpm is the one whose quotes the host records,
// guest the one whose quote the guest sends.
func attestVM(t *testing.T, scheme attest.Scheme, ptpm, vtpm, guest *machine) *attest.Evidence {
	t.Helper()
	c := attest.Challenge{Nonce: attest.Nonce{42}, Scheme: scheme, Host: softhost.HostID(ptpm.ek), VMs: []attest.UUID{{1}}, NotAfter: softhost.Now.Unix() + 60}
	n := binding.VMNonce(scheme, c.Nonce, c.VMs[0])
	recorded, values := vtpm.quote(t, n[:])
	sent := recorded
	if guest != vtpm {
		sent, values = guest.quote(t, n[:])
	}
	ekName, err := quote.NameOf(vtpm.ek)
	if err != nil {
		t.Fatal(err)
	}
	ev := &attest.Evidence{Version: attest.EvidenceVersion, Challenge: c, VMs: []attest.VMEvidence{{
		UUID: c.VMs[0], Status: attest.VMQuoted, Epoch: 1, EKName: ekName, EK: vtpm.ek, AKName: vtpm.ak.Name, QuoteHash: recorded.Hash(),
		AK: guest.ak.Public, Quote: sent, PCRs: values,
	}}}
	item := binding.Item(scheme, c.Nonce, sepa.Body([]sepa.Leaf{sepa.LeafOf(&ev.VMs[0])}))
	extra := binding.Round([]attest.Digest{item})
	if scheme == attest.SchemeSEPAExact {
		extra = binding.Exact(c.Nonce, recorded.Hash())
	}
	ev.Inclusion = binding.Include([]attest.Digest{item}, 0)
	ev.Host = attest.HostEvidence{ID: c.Host, AK: ptpm.ak.Public, EK: ptpm.ek}
	ev.Host.Quote, ev.Host.PCRs = ptpm.quote(t, extra[:])
	return ev
}

// Attack 1 with three real TPMs: the vTPM of the bad VM, a copy of its state elsewhere, and the good host's pTPM.
func TestVerify_links_real_TPMs_and_rejects_a_relay_between_them(t *testing.T) {
	ptpm, bad, pristine := newMachine(t, 0), newMachine(t, 1), newMachine(t, 1)
	bad.run(t, "rootkit")
	for _, scheme := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeSEPAExact} {
		t.Run(scheme.String(), func(t *testing.T) {
			if l := verify(t, attestVM(t, scheme, ptpm, bad, bad)); l.Err() != nil {
				t.Errorf("an honest answer: %v", l.Err())
			}
			l := verify(t, attestVM(t, scheme, ptpm, bad, pristine))
			failed(t, l.VMs[0], link.KindHash)
			if l.VMs[0].QuoteErr != nil || l.Host.Err != nil {
				t.Errorf("separately the quotes would not pass: %v, %v", l.VMs[0].QuoteErr, l.Host.Err)
			}
		})
	}
}
