// Package link says whether VMs and host belong together. Linked is what attest/sepa and
// attest/hypa give back; the steps that both schemes share are here: that an Evidence answers
// the challenge that was sent (Answers), that the host's quote binds what the Evidence says
// (VerifyHost), and what follows from both for each VM (Settle).
//
// A Linked never holds a value that is not proven: what an error leaves unproven is zero beside
// it. The failure of one VM takes nothing from the others; the failure of the host takes
// everything from all.
//
// Nothing here says whose keys these are. Whether HostLink.AK is enrolled for this host, and
// VMLink.EKName and AKName for this VM, is the caller's to decide, always.
package link

import (
	"virt-attest/attest"
	"virt-attest/attest/quote"
)

// Linked is the outcome of layer linking for one challenge.
type Linked struct {
	Scheme attest.Scheme
	Host   HostLink
	VMs    []VMLink // every VM asked for and every VM answered for, sorted by UUID
}

// HostLink is the host's part.
type HostLink struct {
	AK    attest.Name     // of the key that signed Quote; the caller must know it as this host's
	Quote *quote.Verified // nil where Err is set
	Err   error           // a *quote.Error, or an *Error of KindComposite
}

// VMLink is one VM's part.
type VMLink struct {
	UUID   attest.UUID
	Status attest.VMStatus // as the host signed it; zero where the host does not hold or left the VM out
	Epoch  uint64          // as the host signed it
	EKName attest.Name     // as the host signed it; nil in sepa-exact, where nothing signs it
	AKName attest.Name     // SEPA: as the host signed it, of the key that signed Quote; in sepa-exact nil beside an error

	Quote *quote.Verified  // SEPA: nil unless LinkErr and QuoteErr are
	Banks []attest.PCRBank // PCR values that are proven to be this VM's on this host; nil unless LinkErr and QuoteErr are

	LinkErr  error // an *Error: why this VM is not shown to run on this host
	QuoteErr error // SEPA: a *quote.Error: why the VM's quote does not hold by itself. nil beside a LinkErr is what a relay attack looks like
}

// Err gives the first failure, or nil if this VM is shown to run on this host.
func (v VMLink) Err() error {
	if v.LinkErr != nil {
		return v.LinkErr
	}
	return v.QuoteErr
}

// Err gives the first failure: the host's, then the VMs' in order.
func (l *Linked) Err() error {
	if l.Host.Err != nil {
		return l.Host.Err
	}
	for _, v := range l.VMs {
		if err := v.Err(); err != nil {
			return err
		}
	}
	return nil
}

// VM finds a VM, or gives false.
func (l *Linked) VM(id attest.UUID) (VMLink, bool) {
	for _, v := range l.VMs {
		if v.UUID == id {
			return v, true
		}
	}
	return VMLink{}, false
}
