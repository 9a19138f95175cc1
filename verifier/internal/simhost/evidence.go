package simhost

import (
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/internal/softhost"
	"virt-attest/internal/softtpm"
	"virt-attest/verifier/api"
)

// Evidence makes the answer to a challenge, with live quotes.
func (h *Host) Evidence(c *attest.Challenge) *attest.Evidence {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	ev := &attest.Evidence{Version: attest.EvidenceVersion, Challenge: *c, VMs: h.ofVMs(c)}
	if h.OnVM != nil {
		for i := range ev.VMs {
			h.OnVM(&ev.VMs[i])
		}
	}
	extra, inclusion := bind(c, ev.VMs)
	ev.Inclusion = inclusion
	h.TPM.Clock += 10
	banks := h.IMA.PCRs.Values()
	ev.Host = attest.HostEvidence{ID: h.ID(), Quote: h.TPM.Quote(extra[:], banks), AK: h.TPM.AKPublic(), EK: h.TPM.EKPublic(), PCRs: banks,
		IMA: h.since(c.ResumeFor(attest.UUID{})), BootLog: h.bootLog(c, attest.UUID{})}
	if h.OnEvid != nil {
		h.OnEvid(ev)
	}
	return ev
}

// ofVMs are the answers of the VMs that a challenge asks for, all where it names none, by UUID.
func (h *Host) ofVMs(c *attest.Challenge) (out []attest.VMEvidence) {
	if c.Scheme == attest.SchemeHost {
		return nil
	}
	for _, v := range h.VMs {
		if len(c.VMs) == 0 || slices.Contains(c.VMs, v.UUID) {
			out = append(out, v.Evidence(c))
		}
	}
	for _, id := range c.VMs {
		if !slices.ContainsFunc(h.VMs, func(v *VM) bool { return v.UUID == id }) {
			out = append(out, attest.VMEvidence{UUID: id, Status: attest.VMNotRunning})
		}
	}
	slices.SortFunc(out, func(a, b attest.VMEvidence) int { return a.UUID.Compare(b.UUID) })
	return out
}

// bind gives what the host's quote signs beside the PCRs: a round of three challenges, of which this is the
// second, or by sepa-exact this one alone.
func bind(c *attest.Challenge, vms []attest.VMEvidence) (attest.Digest, attest.Inclusion) {
	if c.Scheme == attest.SchemeSEPAExact {
		return binding.Exact(c.Nonce, vms[0].QuoteHash), attest.Inclusion{Count: 1}
	}
	items := []attest.Digest{{1}, binding.Item(c.Scheme, c.Nonce, softhost.Body(c.Scheme, vms)), {2}}
	return binding.Round(items), binding.Include(items, 1)
}

// Direct is what the VM answers to somebody who asks it over the network with n; its host records the quote.
func (v *VM) Direct(n attest.Nonce) api.DirectAnswer {
	e := v.Evidence(&attest.Challenge{Scheme: attest.SchemeSEPA, Nonce: n, VMs: []attest.UUID{v.UUID}, BootLogs: true})
	if v.crossed == nil {
		v.crossed = make(map[attest.Nonce]attest.VMEvidence)
	}
	v.crossed[n] = attest.VMEvidence{UUID: e.UUID, Name: e.Name, Status: e.Status, Epoch: e.Epoch, EKName: e.EKName, EK: e.EK, AKName: e.AKName, QuoteHash: e.QuoteHash}
	return api.DirectAnswer{Parameters: e.Quote.Parameters(), PCRs: e.PCRs, AK: e.AK, IMA: e.IMA, BootLog: e.BootLog, Agent: e.Agent}
}

// linked is what the host says where only the link is asked for.
func (v *VM) linked(n attest.Nonce) attest.VMEvidence {
	if e, ok := v.crossed[n]; ok {
		return e
	}
	return attest.VMEvidence{UUID: v.UUID, Name: v.Name, Status: attest.VMNoRecord, Epoch: v.Epoch, EKName: softtpm.Name(v.TPM.EKPublic()), EK: v.TPM.EKPublic()}
}

// Evidence is the VM's part of an answer.
func (v *VM) Evidence(c *attest.Challenge) attest.VMEvidence {
	if len(c.Signer) > 0 {
		return v.linked(c.Nonce)
	}
	banks := v.IMA.PCRs.Values()
	out := attest.VMEvidence{UUID: v.UUID, Name: v.Name, Status: attest.VMQuoted, Epoch: v.Epoch, EKName: softtpm.Name(v.TPM.EKPublic()), EK: v.TPM.EKPublic(),
		PCRs: banks, IMA: v.since(c.ResumeFor(v.UUID)), BootLog: v.bootLog(c, v.UUID), Agent: attest.AgentInfo{Version: "1", Kernel: "6.1", BootID: v.BootID}}
	if c.Scheme != attest.SchemeHYPA {
		v.TPM.Clock += 10
		n := binding.VMNonce(c.Scheme, c.Nonce, v.UUID)
		out.Quote, out.AK, out.AKName = v.TPM.Quote(n[:], banks), v.TPM.AKPublic(), v.TPM.AKName()
		out.QuoteHash = out.Quote.Hash()
	}
	return out
}
