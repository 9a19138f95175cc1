package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/sealed"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
	"virt-attest/verifier/vault"
)

// secretTenant gives whose secrets a caller speaks of: a tenant's caller of its own only.
func secretTenant(who api.Caller, asked string) (string, error) {
	if checkWord(asked) != nil {
		return "", said(ErrInvalid, "a tenant is called by at most %d letters, digits and . _ -", maxWord)
	}
	if who.Tenant == "" || who.Tenant == asked || asked == "" {
		if who.Tenant != "" {
			return who.Tenant, nil
		}
		return asked, nil
	}
	return "", said(ErrForbidden, "%s is of the tenant %s", who.Name, who.Tenant)
}

func checkSecret(name string) error {
	if err := sealed.CheckName(name); err != nil {
		return said(ErrInvalid, "%v", err)
	}
	return nil
}

// kept names a secret for the vault.
func kept(tenant, name string) string { return "secret\x00" + tenant + "\x00" + name }

// Secrets lists secrets without their values.
func (e *Engine) Secrets(ctx context.Context, who api.Caller) ([]api.Secret, error) {
	list, err := e.store.ListSecrets(ctx, who.Tenant)
	if err != nil {
		return nil, fromStore(err, "secrets")
	}
	return append([]api.Secret{}, list...), nil
}

// PutSecret keeps a secret, encrypted under a key that is not in the database. Its value is in no log, event or answer.
func (e *Engine) PutSecret(ctx context.Context, who api.Caller, name string, s api.SecretPut) error {
	tenant, err := secretTenant(who, s.Tenant)
	if err := first(err, checkSecret(name)); err != nil {
		return err
	}
	if len(s.Value) == 0 || len(s.Value) > sealed.MaxSecret {
		return said(ErrInvalid, "a secret has 1 to %d bytes", sealed.MaxSecret)
	}
	if e.conf.Vault == nil {
		return errNoVault
	}
	id, data, err := e.conf.Vault.Seal(kept(tenant, name), s.Value)
	if errors.Is(err, vault.ErrNoKey) {
		return said(ErrConflict, "the Verifier has no key for secrets: make one (virt-attest-verifier.toml(5), [secrets]), the same for all replicas")
	}
	if err != nil {
		return fmt.Errorf("the key for secrets: %w", err)
	}
	by := e.trail(who, "secret.define", name, map[string]any{"tenant": tenant, "size": len(s.Value)})
	err = e.store.PutSecret(ctx, store.Secret{Tenant: tenant, Name: name, Size: len(s.Value), KeyID: id, Data: data}, who.Name, time.Now(), maxSecrets, by)
	if errors.Is(err, store.ErrFull) {
		return said(ErrBusy, "there are %d secrets already", maxSecrets)
	}
	return fromStore(err, "secret "+name)
}

// DeleteSecret forgets a secret. What was released stays where it is.
func (e *Engine) DeleteSecret(ctx context.Context, who api.Caller, name, tenant string) error {
	tenant, err := secretTenant(who, tenant)
	if err := first(err, checkSecret(name)); err != nil {
		return err
	}
	return fromStore(e.store.DeleteSecret(ctx, tenant, name, e.trail(who, "secret.undefine", name, map[string]string{"tenant": tenant})), "secret "+name)
}

// AssignSecret has a secret released to a VM from now on, or not any more. One of a tenant is for VMs of that tenant only.
func (e *Engine) AssignSecret(ctx context.Context, who api.Caller, name, tenant, vm string, on bool) error {
	tenant, err := secretTenant(who, tenant)
	if err := first(err, checkSecret(name)); err != nil {
		return err
	}
	m, err := e.visible(ctx, who, vm)
	if err != nil {
		return err
	}
	if !isVM(m) {
		return said(ErrInvalid, "secrets are released to VMs")
	}
	if !on {
		by := e.trail(who, "secret.unassign", name, map[string]string{"tenant": tenant, "vm": m})
		return fromStore(e.store.UnassignSecret(ctx, tenant, name, m, by), "secret "+name+" of this VM")
	}
	tenants, err := e.store.TenantsOf(ctx, []string{m})
	if err != nil {
		return fromStore(err, "machine "+m)
	}
	if tenant != "" && tenants[m] != tenant {
		return said(ErrConflict, "the secret is of the tenant %s, and the VM is not", tenant)
	}
	by := e.trail(who, "secret.assign", name, map[string]string{"tenant": tenant, "vm": m})
	switch err := e.store.AssignSecret(ctx, tenant, name, m, api.MaxVMSecrets, by); {
	case errors.Is(err, store.ErrConflict):
		return said(ErrConflict, "the VM has a secret of that name of another tenant")
	case errors.Is(err, store.ErrFull):
		return said(ErrConflict, "a VM has at most %d secrets", api.MaxVMSecrets)
	default:
		return fromStore(err, "secret "+name)
	}
}

// Release gives a VM's secrets to its host, sealed to the VM's vTPM, its run and its agent's nonce. The VM must be TRUSTED on this
// host now, by Evidence that is not older than its policy allows, and so must the host. It is in the audit log before anything leaves.
func (e *Engine) Release(ctx context.Context, client string, r *api.ReleaseRequest) (*api.Release, error) {
	h, err := e.acceptedHost(ctx, client, r.Host)
	if err != nil {
		return nil, err
	}
	if len(r.Nonce) != sealed.NonceSize || r.Epoch == 0 {
		return nil, said(ErrInvalid, "the nonce has not %d bytes, or the run of the VM is not told", sealed.NonceSize)
	}
	vm := r.Machine.String()
	list, err := e.store.SecretValues(ctx, vm)
	if err != nil {
		return nil, fromStore(err, "secrets")
	}
	out := &api.Release{Items: []api.ReleasedSecret{}}
	if len(list) == 0 {
		return out, nil
	}
	row, err := e.fresh(ctx, h.ID, r)
	if err != nil {
		return nil, err
	}
	f, ek, err := e.sealedFor(ctx, h.ID, r, row)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, s := range list {
		if s.Tenant != "" && s.Tenant != row.Tenant {
			continue // the VM is another tenant's since
		}
		box, err := e.seal(ek, f, s)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, api.ReleasedSecret{Name: s.Name, Box: *box})
		names = append(names, s.Name)
	}
	detail := map[string]any{"names": names, "report": row.Result.Report, "epoch": r.Epoch, "ak_name": f.AKName}
	by := e.trail(api.Caller{Name: "host:" + h.ID}, "secret.release", vm, detail, api.Event{Kind: api.EventAction, Machine: vm, Name: row.Name, Host: h.ID,
		Tenant: row.Tenant, State: row.Result.State, Report: row.Result.Report, Text: fmt.Sprintf("%d secrets were released to %s, which is TRUSTED", len(names), row.Name)})
	return out, fromStore(e.store.Leave(ctx, by), "the audit log")
}

// fresh gives the VM's row where it is TRUSTED in this run on this host, by fresh Evidence.
func (e *Engine) fresh(ctx context.Context, host string, r *api.ReleaseRequest) (*store.VMRow, error) {
	row, err := e.oneRow(ctx, api.Caller{}, r.Machine.String(), host)
	if err != nil {
		return nil, err
	}
	bases, _, err := e.subjects(ctx, []string{r.Machine.String()})
	if err != nil {
		return nil, fromStore(err, "the VM's policy")
	}
	now := time.Now()
	if s := current(&row.Record, now).State; s != appraise.Trusted {
		return nil, errNotReleased("the VM is %s", s)
	}
	if row.Result.Epoch != r.Epoch {
		return nil, errNotReleased("it is TRUSTED in another run (%d) than this one (%d)", row.Result.Epoch, r.Epoch)
	}
	if age, most := now.Sub(row.Result.Time), bases[r.Machine.String()].Schedule.MaxAge; age > most {
		return nil, errNotReleased("the evidence is %v old, and the policy allows %v", age.Round(time.Second), most)
	}
	return row, nil
}

// sealedFor gives what to seal with: the keys on record for this VM on this host, both proven.
func (e *Engine) sealedFor(ctx context.Context, host string, r *api.ReleaseRequest, row *store.VMRow) (f sealed.For, ek []byte, err error) {
	known, err := e.store.VTPMs(ctx, r.Machine, nil)
	if err != nil {
		return f, nil, fromStore(err, "the VM's vTPM")
	}
	if len(known) != 1 || known[0].Host != host || !bytes.Equal(known[0].EKName, row.Result.EKName) {
		return f, nil, errNotReleased("its vTPM is not known to be on this host")
	}
	if len(known[0].AKName) == 0 {
		return f, nil, errNotReleased("its attestation key was never proven; attest it once by sepa")
	}
	s, err := e.newest(ctx, api.Caller{}, r.Machine.String())
	if err != nil {
		return f, nil, err
	}
	if s.vm == nil {
		return f, nil, errNotReleased("its endorsement key is not on record; attest it again")
	}
	if n, err := quote.NameOf(s.vm.EK); err != nil || !bytes.Equal(n, known[0].EKName) {
		return f, nil, errNotReleased("its endorsement key is not on record; attest it again")
	}
	return sealed.For{VM: r.Machine, Epoch: r.Epoch, EKName: known[0].EKName, AKName: attest.Name(known[0].AKName), Nonce: r.Nonce}, s.vm.EK, nil
}

func (e *Engine) seal(ek []byte, f sealed.For, s store.Secret) (*sealed.Box, error) {
	if e.conf.Vault == nil {
		return nil, errNoVault
	}
	value, err := e.conf.Vault.Open(kept(s.Tenant, s.Name), s.KeyID, s.Data)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", s.Name, err)
	}
	defer clear(value)
	f.Name = s.Name
	return sealed.Seal(rand.Reader, ek, f, value)
}
