package custody

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"virt-attest/attest"
)

// Status is what an operator wants to know of a host's custody.
type Status struct {
	NewVTPMs  bool                  `json:"new_vtpms"`
	TPM       TPM                   `json:"tpm"`
	PCRs      []attest.PCRSelection `json:"-"`
	SealedTo  []attest.PCRBank      `json:"sealed_to"` // the values of then
	Opens     bool                  `json:"opens"`     // the pTPM gives the secret out now: VMs start after a reboot, too
	Problem   string                `json:"problem,omitempty"`
	Recipient string                `json:"recovery,omitempty"` // empty: there is no recovery
	VMs       []VMStatus            `json:"vms"`
}

// VMStatus is one VM with a vTPM on this host.
type VMStatus struct {
	UUID    attest.UUID `json:"uuid"`
	Custody bool        `json:"custody"` // it has a record
	State   string      `json:"state"`   // encrypted, clear or none
	Problem string      `json:"problem,omitempty"`
}

var formNames = map[form]string{absent: "none", clear: "clear", encrypted: "encrypted"}

// Status asks the pTPM and looks at every vTPM's state.
func (c *Custody) Status(ctx context.Context) (*Status, error) {
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	h, err := c.readHost()
	if err != nil {
		return nil, err
	}
	s := &Status{NewVTPMs: h.NewVTPMs, TPM: h.TPM, PCRs: h.Sealed.PCRs, SealedTo: h.Sealed.Values, Opens: true, Recipient: h.Recovery.Recipient}
	if _, err := h.unlock(ctx); err != nil {
		s.Opens, s.Problem = false, err.Error()
	}
	s.VMs, err = c.vms()
	return s, err
}

// vms lists all VMs that have a record or a state, in order.
func (c *Custody) vms() ([]VMStatus, error) {
	ids := make(map[attest.UUID]bool)
	for _, dir := range []string{c.VTPMs, filepath.Join(c.Dir, "vm")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if id, err := attest.ParseUUID(e.Name()); err == nil && len(ids) < maxVMs {
				ids[id] = true
			}
		}
	}
	out := make([]VMStatus, 0, len(ids))
	for id := range ids {
		out = append(out, c.vmStatus(id))
	}
	slices.SortFunc(out, func(a, b VMStatus) int { return a.UUID.Compare(b.UUID) })
	return out, nil
}

func (c *Custody) vmStatus(id attest.UUID) VMStatus {
	s := VMStatus{UUID: id, State: "unknown"}
	v, err := c.readVM(id)
	if err != nil {
		s.Problem = err.Error()
		return s
	}
	s.Custody = v != nil
	st, err := c.openState(id)
	if err == nil && st != nil {
		defer st.close()
	}
	how := absent
	if err == nil {
		how, err = st.form()
	}
	switch {
	case err != nil:
		s.Problem = err.Error()
		return s
	case v == nil && how == encrypted:
		s.Problem = errUnknownKey.Error()
	case v != nil && !v.Pending && how == clear:
		s.Problem = errPlanted.Error()
	case v != nil && v.Pending:
		s.Problem = "a conversion was interrupted; repeat it"
	}
	s.State = formNames[how]
	return s
}

// Encrypted reports whether a VM's state is encrypted, by whatever key.
func (c *Custody) Encrypted(id attest.UUID) (bool, error) {
	st, err := c.openState(id)
	if st == nil || err != nil {
		return false, err
	}
	defer st.close()
	how, err := st.form()
	return how == encrypted, err
}
