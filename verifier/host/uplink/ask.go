package uplink

import (
	"context"
	"errors"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// errAway says that there is no connection to the Verifier now.
var errAway = errors.New("uplink: the Verifier is away")

// rulesAre passes on whether rules have changed. A host that is not accepted yet has no schedule and no rules: those of before stay.
func (u *Uplink) rulesAre(s *api.Schedule, hash []byte) {
	if s != nil && u.Rules != nil {
		u.Rules(hash)
	}
}

// Asker asks the Verifier of the connection that is there for what enforcement needs. While it is away that is an error.
type Asker struct{ Uplink *Uplink }

func (a Asker) ask(ctx context.Context, f func(v Verifier, host string) error) error {
	a.Uplink.mu.Lock()
	v := a.Uplink.current
	a.Uplink.mu.Unlock()
	if v == nil {
		return errAway
	}
	id, err := a.Uplink.Host.TPM.Identity(ctx)
	if err != nil {
		return err
	}
	return f(v, id.ID)
}

// Rules gives the rules of VMs, in their order.
func (a Asker) Rules(ctx context.Context, vms []attest.UUID) (list []api.Rule, err error) {
	err = a.ask(ctx, func(v Verifier, host string) error {
		r, err := v.Rules(ctx, api.RulesRequest{Host: host, VMs: vms})
		if err == nil {
			list = r.Items
		}
		return err
	})
	return list, err
}

// Acted tells what was done to a VM.
func (a Asker) Acted(ctx context.Context, act api.Act) error {
	return a.ask(ctx, func(v Verifier, host string) error { return v.Acted(ctx, api.Acted{Host: host, Acts: []api.Act{act}}) })
}

// Release gets a VM's secrets, sealed.
func (a Asker) Release(ctx context.Context, vm attest.UUID, epoch uint64, nonce []byte) (list []api.ReleasedSecret, err error) {
	err = a.ask(ctx, func(v Verifier, host string) error {
		r, err := v.Release(ctx, api.ReleaseRequest{Host: host, Machine: vm, Epoch: epoch, Nonce: nonce})
		if err == nil {
			list = r.Items
		}
		return err
	})
	return list, err
}
