package simhost

import (
	"crypto/rand"
	"fmt"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/softtpm"
	"virt-attest/verifier/rim"
)

// Box is a simulated machine: a TPM in software, PCRs and logs as the kernel writes them.
type Box struct {
	TPM    *softtpm.TPM
	IMA    *measuretest.IMA
	Boot   *measuretest.BootLog
	BootID string
}

// NewBox makes a machine that has booted and run one program.
func NewBox() *Box {
	b := &Box{TPM: softtpm.New(rand.Reader, softtpm.ECCEK()), BootID: "boot-1"}
	b.TPM.Clock, b.TPM.ResetCount, b.TPM.Safe = 1000, 3, true
	pcrs := measuretest.NewPCRs(attest.SHA256)
	b.Boot, b.IMA = &measuretest.BootLog{PCRs: pcrs}, &measuretest.IMA{PCRs: pcrs}
	b.Boot.Begin()
	b.Boot.Event(0, measuretest.EvCRTM, []byte("firmware"))
	b.Boot.Separators()
	b.IMA.Boot()
	b.IMA.File("/usr/bin/init", "init")
	return b
}

// Golden are reference values of a machine as it is.
func (b *Box) Golden(t testing.TB, name string) []byte {
	t.Helper()
	p, err := measurement.Replay(b.IMA.Segment("g"), measurement.State{}, b.IMA.PCRs.Values(), measurement.Options{})
	Must(t, err)
	f, _, err := rim.FromLog(rim.Golden{Name: name, Entries: p.Entries(), PCRs: b.IMA.PCRs.Values()})
	Must(t, err)
	out, err := f.Encode()
	Must(t, err)
	return out
}

func (b *Box) since(r attest.Resume) attest.LogSegment {
	seg := b.IMA.Segment(b.BootID)
	if r.BootID == b.BootID && r.Count > 0 && r.Count <= seg.Count {
		seg = measuretest.Cut(seg, r.Count, seg.Count)
	}
	return seg
}

// bootLog is the boot log, where the challenge asks for it.
func (b *Box) bootLog(c *attest.Challenge, machine attest.UUID) []byte {
	if !c.WantsBootLog(machine, b.BootID) {
		return nil
	}
	return b.Boot.Data
}

// VM is a simulated VM with a guest agent that answers.
type VM struct {
	*Box
	UUID  attest.UUID
	Name  string
	Epoch uint64

	crossed map[attest.Nonce]attest.VMEvidence // quotes over challenges that the host did not bring
}

// NewVM makes a VM whose UUID ends in n, with the name "vm" and n.
func NewVM(n byte) *VM {
	return &VM{Box: NewBox(), UUID: attest.UUID{15: n}, Name: fmt.Sprintf("vm%d", n), Epoch: 1}
}
