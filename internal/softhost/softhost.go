// Package softhost is a host in software that answers challenges by every scheme, for tests: pTPM and
// vTPMs are internal/softtpm, the store is a map. What it does is what a good host does, step by step;
// a test then changes the VMs before, or the Evidence after.
//
//	h := softhost.New("host-1", 3)
//	ev := h.Answer(h.Challenge(attest.SchemeSEPA))
//	linked, err := sepa.Verify(ev, &ev.Challenge, softhost.Now)
//
// No program may import it.
package softhost

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/hypa"
	"virt-attest/attest/sepa"
	"virt-attest/internal/softtpm"
)

// Now is the time at which Challenge's challenges are asked; they end a minute later.
var Now = time.Unix(1_800_000_000, 0)

// Host is a machine with VMs. Change what is needed before Answer.
type Host struct {
	ID      string
	TPM     *softtpm.TPM
	Banks   []attest.PCRBank
	IMA     attest.LogSegment
	BootLog []byte
	VMs     []*VM // ascending by UUID
}

// VM is a VM with its vTPM.
type VM struct {
	UUID    attest.UUID
	Name    string
	Status  attest.VMStatus
	Epoch   uint64
	TPM     *softtpm.TPM
	Banks   []attest.PCRBank // all 24 PCRs of every bank
	IMA     attest.LogSegment
	BootLog []byte
	Serving []attest.Software // of what serves the VM on its host

	// Guest, if set, replaces the VM's honest answer to a challenge: what it returns is what the host
	// gets from the guest. recorded is what the VM's own vTPM made, and what the store holds.
	Guest func(nonce attest.Nonce, recorded attest.Quote) (q attest.Quote, ak []byte, values []attest.PCRBank)
}

// New makes a host with VMs named vm0, vm1, …; the same name gives the same keys. All
// endorsement keys are on P-256 (softtpm.ECCEK), unless opts say otherwise.
func New(name string, vms int, opts ...softtpm.Option) *Host {
	if len(opts) == 0 {
		opts = []softtpm.Option{softtpm.ECCEK()}
	}
	h := &Host{TPM: softtpm.New(seed(name), opts...), Banks: Banks(name, attest.SHA256), IMA: Log(name)}
	h.ID = HostID(h.TPM.EKPublic())
	for i := range vms {
		vm := fmt.Sprintf("%s/vm%d", name, i)
		h.VMs = append(h.VMs, &VM{
			UUID: UUID(i), Name: fmt.Sprintf("vm%d", i), Status: attest.VMQuoted, Epoch: 1,
			TPM: softtpm.New(seed(vm), opts...), Banks: Banks(vm, attest.SHA256), IMA: Log(vm),
		})
	}
	return h
}

// HostID is the ID of the host with an endorsement key: half of SHA-256 over its public area, in hexadecimal.
func HostID(ek []byte) string {
	d := sha256.Sum256(ek)
	return hex.EncodeToString(d[:16])
}

// UUID gives the UUID of a host's VM number i; they ascend with i.
func UUID(i int) attest.UUID {
	return attest.UUID{0: byte(i >> 8), 1: byte(i), 6: 0x40, 8: 0x80, 15: 1}
}

// Banks makes whole banks of 24 PCRs with values that depend on name.
func Banks(name string, algs ...attest.Alg) (banks []attest.PCRBank) {
	for _, a := range algs {
		h, ok := a.Hash()
		if !ok {
			panic(fmt.Sprintf("softhost: %v", a))
		}
		b := attest.PCRBank{Alg: a}
		for i := range uint8(attest.PCRCount) {
			d := h.New()
			fmt.Fprintf(d, "%s/%d", name, i)
			b.PCRs = append(b.PCRs, attest.PCR{Index: i, Value: d.Sum(nil)})
		}
		banks = append(banks, b)
	}
	return banks
}

// Log makes a piece of log, which no kernel wrote, with bytes that depend on name.
func Log(name string) attest.LogSegment {
	data := bytes.Repeat([]byte(name), 20)
	return attest.LogSegment{BootID: "boot of " + name, TemplateHash: attest.SHA1, Count: 2, Data: data}
}

// seed is a reader of 32 bytes that depend on name.
func seed(name string) *bytes.Reader {
	d := sha256.Sum256([]byte(name))
	return bytes.NewReader(d[:])
}

// Challenge makes a challenge of this host about vms (none: all), with a nonce of its own for each
// scheme and set.
func (h *Host) Challenge(s attest.Scheme, vms ...*VM) *attest.Challenge {
	c := &attest.Challenge{Scheme: s, Host: h.ID, NotAfter: Now.Add(time.Minute).Unix()}
	for _, vm := range vms {
		c.VMs = append(c.VMs, vm.UUID)
	}
	slices.SortFunc(c.VMs, attest.UUID.Compare)
	c.Nonce = sha256.Sum256(fmt.Append([]byte(h.ID), s, c.VMs))
	return c
}

// Answer answers c, alone in its round.
func (h *Host) Answer(c *attest.Challenge) *attest.Evidence { return h.Round(c)[0] }

// Round answers all of cs under one pTPM quote. A challenge by sepa-exact must be alone.
func (h *Host) Round(cs ...*attest.Challenge) []*attest.Evidence {
	evs, items := make([]*attest.Evidence, len(cs)), make([]attest.Digest, len(cs))
	for i, c := range cs {
		evs[i] = &attest.Evidence{Version: attest.EvidenceVersion, Challenge: *c, VMs: h.collect(c)}
		items[i] = binding.Item(c.Scheme, c.Nonce, Body(c.Scheme, evs[i].VMs))
	}
	extra := binding.Round(items)
	if cs[0].Scheme == attest.SchemeSEPAExact {
		extra = binding.Exact(cs[0].Nonce, evs[0].VMs[0].QuoteHash)
	}
	q := h.TPM.Quote(extra[:], h.Banks)
	for i, c := range cs {
		evs[i].Inclusion = binding.Include(items, i)
		evs[i].Host = attest.HostEvidence{ID: h.ID, Quote: cloneQuote(q), AK: h.TPM.AKPublic(), EK: h.TPM.EKPublic(), PCRs: cloneBanks(h.Banks), IMA: cloneLog(h.IMA)}
		if c.BootLogs {
			evs[i].Host.BootLog = h.BootLog
		}
	}
	return evs
}

// Body gives the body of a round's item.
func Body(s attest.Scheme, vms []attest.VMEvidence) attest.Digest {
	switch s {
	case attest.SchemeHYPA:
		return hypa.Body(hypa.SnapshotOf(vms))
	case attest.SchemeSEPA, attest.SchemeSEPAExact:
		var leaves []sepa.Leaf
		for i := range vms {
			leaves = append(leaves, sepa.LeafOf(&vms[i]))
		}
		return sepa.Body(leaves)
	}
	return attest.Digest{}
}

// collect gets what c asks for from the VMs.
func (h *Host) collect(c *attest.Challenge) (out []attest.VMEvidence) {
	if c.Scheme == attest.SchemeHost {
		return nil
	}
	asked := c.VMs
	if len(asked) == 0 {
		for _, vm := range h.VMs {
			asked = append(asked, vm.UUID)
		}
	}
	for _, id := range asked {
		i := slices.IndexFunc(h.VMs, func(vm *VM) bool { return vm.UUID == id })
		if i < 0 {
			out = append(out, attest.VMEvidence{UUID: id, Status: attest.VMNotRunning})
			continue
		}
		out = append(out, h.VMs[i].answer(c))
	}
	return out
}

func (vm *VM) answer(c *attest.Challenge) attest.VMEvidence {
	e := attest.VMEvidence{UUID: vm.UUID, Name: vm.Name, Status: vm.Status, Epoch: vm.Epoch, EK: vm.TPM.EKPublic(), EKName: softtpm.Name(vm.TPM.EKPublic()), Software: vm.Serving}
	if c.BootLogs {
		e.BootLog = vm.BootLog
	}
	if vm.Status == attest.VMQuoted || vm.Status == attest.VMNoRecord {
		e.IMA = cloneLog(vm.IMA)
		if c.Scheme != attest.SchemeHYPA {
			vm.quote(c, &e)
		}
	}
	if c.Scheme == attest.SchemeHYPA && vm.Status == attest.VMQuoted {
		e.PCRs = cloneBanks(vm.Banks)
	}
	return e
}

// quote is SEPA's steps 1 to 3.
func (vm *VM) quote(c *attest.Challenge, e *attest.VMEvidence) {
	nonce := binding.VMNonce(c.Scheme, c.Nonce, vm.UUID)
	e.Quote, e.AK, e.PCRs = vm.TPM.Quote(nonce[:], vm.Banks), vm.TPM.AKPublic(), cloneBanks(vm.Banks)
	if vm.Status == attest.VMQuoted {
		e.QuoteHash, e.AKName = e.Quote.Hash(), vm.TPM.AKName()
	}
	if vm.Guest != nil {
		e.Quote, e.AK, e.PCRs = vm.Guest(nonce, e.Quote)
	}
}

// The Evidence shares no memory with the host, so that a test may change it.

func cloneQuote(q attest.Quote) attest.Quote {
	return attest.Quote{Attest: bytes.Clone(q.Attest), Signature: bytes.Clone(q.Signature)}
}

func cloneLog(l attest.LogSegment) attest.LogSegment {
	l.Data = bytes.Clone(l.Data)
	return l
}

func cloneBanks(banks []attest.PCRBank) []attest.PCRBank {
	out := slices.Clone(banks)
	for i := range out {
		out[i].PCRs = slices.Clone(out[i].PCRs)
		for j := range out[i].PCRs {
			out[i].PCRs[j].Value = bytes.Clone(out[i].PCRs[j].Value)
		}
	}
	return out
}
