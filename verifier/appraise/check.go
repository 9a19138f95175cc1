package appraise

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/attest/quote"
)

// check is the appraisal of one machine.
type check struct {
	layer   Layer
	s       Subject
	host    string // ID of the host it runs on
	epoch   uint64 // VMs: power cycles of the vTPM, signed by the host
	frozen  bool   // nothing learned now may change the state
	ak      attest.Name
	quote   *quote.Verified // nil for a VM in HYPA
	banks   []attest.PCRBank
	ima     attest.LogSegment
	bootLog []byte
	agent   string            // its version
	named   []attest.Software // of the host
	serving []attest.Software // of what serves the VM on it

	basis    attest.Digest
	log0     *eventlog.Log // the boot log, nil where none came or it cannot be read
	logErr   error
	recalled bool // none came, and the one of this boot was found in order before
	signers  signers

	now       time.Time
	overtaken bool // a challenge sent after this one was answered before

	newBoot bool // the TPM or the host says that this is not the boot of s.Prior
	reasons []Reason
	notes   []Reason
	next    Machine
}

func newCheck(in *Input, layer Layer, s Subject) *check {
	c := &check{layer: layer, s: s, host: in.Evidence.Host.ID, next: s.Prior, reasons: slices.Clone(s.Known)}
	c.frozen = len(s.Known) > 0
	c.named, c.basis = in.Evidence.Host.Software, Basis(s.Policy, s.RIMs)
	c.signers = signers{mode: s.Policy.Signatures, left: maxVerify}
	c.now, c.overtaken = in.Now, !in.Issued.IsZero() && s.Prior.Time.After(in.Issued)
	return c
}

// guarded runs an appraisal and turns a panic into ERROR: no fault of ours leaves a machine as
// trusted as it was before.
func guarded(in *Input, id attest.UUID, s Subject, appraisal func() Outcome) (out Outcome) {
	defer func() {
		if p := recover(); p != nil {
			c := &check{s: Subject{Name: s.Name, Policy: s.Policy}, host: in.Evidence.Host.ID, next: s.Prior}
			c.add(Reason{Code: CodeInternal, Layer: LayerVerifier, Text: fmt.Sprintf("the Verifier failed while it appraised this machine: %v", p),
				Hint: "This says nothing about the machine. Please report it with the saved evidence."})
			out = c.outcome(in, id)
		}
	}()
	return appraisal()
}

// run makes all checks whose values are proven.
func (c *check) run() {
	if c.frozen {
		defer func() { c.next = c.s.Prior }()
	}
	back := c.counters()
	if len(c.s.RIMs) == 0 {
		c.add(Reason{Code: CodeNoReference, Text: "no reference values are assigned to this machine",
			Hint: "Make some from a machine that is known to be good (virt-attest rim create) and assign them."})
	}
	c.proven()
	c.tpm()
	c.software()
	c.readBootLog()
	c.firmware(back)
	c.log(back)
}

func (c *check) add(r Reason) {
	if r.Layer == "" {
		r.Layer = c.layer
	}
	c.reasons = append(c.reasons, r)
}

func (c *check) note(r Reason) {
	r.Layer = c.layer
	c.notes = append(c.notes, r)
}

// proven demands the required banks and PCRs (CVE-2022-0317, CVE-2025-64186: a PCR that a
// policy reads must have been under the quote).
func (c *check) proven() {
	for _, alg := range c.s.Policy.banks() {
		bank, ok := attest.Bank(c.banks, alg)
		if !ok {
			c.add(Reason{Code: CodeQuotePCRs, Text: fmt.Sprintf("the quote does not cover the %v bank", alg),
				Hint: "Allocate the bank in the TPM, or change which banks are required."})
			continue
		}
		for _, i := range c.s.Policy.pcrs() {
			if bank.Get(i) == nil {
				c.add(Reason{Code: CodeQuotePCRs, PCR: &i, Text: fmt.Sprintf("the quote does not cover PCR %d of the %v bank", i, alg)})
			}
		}
	}
}

// registers compares the proven PCRs with the reference values.
func (c *check) registers() {
	if len(c.s.RIMs) == 0 {
		return
	}
	compared := [attest.PCRCount]bool{}
	for _, alg := range c.s.RIMs.Banks() {
		bank, ok := attest.Bank(c.banks, alg)
		if !ok {
			continue
		}
		for _, i := range c.s.RIMs.PCRs(alg) {
			compared[i] = c.register(bank, i) || compared[i]
		}
	}
	found := false
	for _, alg := range c.s.RIMs.Banks() {
		for _, i := range c.s.RIMs.PCRs(alg) {
			if found = true; !compared[i] {
				compared[i] = true
				c.add(Reason{Code: CodeQuotePCRs, PCR: &i, Text: fmt.Sprintf("PCR %d has reference values, and no bank of them is under the quote", i)})
			}
		}
	}
	if !found {
		c.add(Reason{Code: CodeNoReference, Text: "the reference values name no PCR: what the machine booted cannot be judged",
			Hint: "Add PCR values of a good machine to the reference values (virt-attest rim create)."})
	}
}

// register compares one PCR; it gives false where the quote does not cover it.
func (c *check) register(bank attest.PCRBank, index uint8) bool {
	value := bank.Get(index)
	if value == nil {
		return false
	}
	ok, _, want := c.s.RIMs.PCR(bank.Alg, index, value)
	if ok {
		return true
	}
	ok, why := c.byEvents(bank, index)
	if ok {
		return true
	}
	if why != "" && c.withheld() {
		c.askBootLog()
		return true
	}
	var allowed []string
	for i, w := range want {
		if i == maxValues {
			allowed = append(allowed, fmt.Sprintf("and %d more", len(want)-i))
			break
		}
		allowed = append(allowed, w.String())
	}
	if why != "" {
		allowed = append(allowed, "values that listed boot events make: "+why)
	}
	c.add(Reason{Code: CodePCRMismatch, PCR: &index, Digest: bank.Alg.String() + ":" + hex.EncodeToString(value),
		Text: fmt.Sprintf("PCR %d (%s) of the %v bank is %x, reference values allow %s", index, pcrUse(index), bank.Alg, value, strings.Join(allowed, ", ")),
		Hint: pcrHint(index)})
	return true
}

// pcrUse says what is measured into a PCR (TCG PC Client Platform Firmware Profile, section 3.3.4).
func pcrUse(index uint8) string {
	uses := []string{"firmware code", "firmware configuration", "option ROM code", "option ROM configuration", "boot loader code",
		"boot loader configuration, partition table", "vendor's own", "Secure Boot policy", "kernel command line, boot loader commands", "kernel, initramfs"}
	if int(index) < len(uses) {
		return uses[index]
	}
	return "operating system"
}

func pcrHint(index uint8) string {
	switch index {
	case 0, 2:
		return "The machine runs other firmware than the reference machine. After a firmware or QEMU update, make new reference values from a machine that is known to be good."
	case 1:
		return "Firmware measures SMBIOS tables here, with the machine's UUID and memory size: make reference values per machine, or leave PCR 1 out."
	case 4, 8, 9:
		return "The machine booted another boot loader, kernel, initramfs or command line than the reference machine."
	}
	return "If the change was meant, make new reference values from a machine that is known to be good."
}
