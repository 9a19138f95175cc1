package apitest

import (
	"cmp"
	"context"
	"slices"

	"virt-attest/internal/sealed"
	"virt-attest/verifier/api"
)

// Secrets lists secrets, which have no values here.
func (f *Fake) Secrets(_ context.Context, who api.Caller) ([]api.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []api.Secret{}
	for _, s := range f.kept {
		if who.Tenant == "" || s.Tenant == who.Tenant {
			out = append(out, s)
		}
	}
	return out, f.fault
}

// PutSecret notes a secret.
func (f *Fake) PutSecret(_ context.Context, who api.Caller, name string, s api.SecretPut) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := sealed.CheckName(name); err != nil || len(s.Value) == 0 || len(s.Value) > sealed.MaxSecret {
		return invalid("name or value")
	}
	v := f.secret(who, name, s.Tenant)
	if v == nil {
		f.kept = append(f.kept, api.Secret{Name: name, Tenant: cmp.Or(who.Tenant, s.Tenant), Created: f.Now(), VMs: []string{}})
		v = &f.kept[len(f.kept)-1]
	}
	v.Size, v.Modified, v.Author = len(s.Value), f.Now(), who.Name
	f.record(who, "secret.define", name)
	return nil
}

// DeleteSecret forgets one.
func (f *Fake) DeleteSecret(_ context.Context, who api.Caller, name, tenant string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.secret(who, name, tenant)
	if v == nil {
		return notFound("secret", name)
	}
	f.kept = slices.DeleteFunc(f.kept, func(s api.Secret) bool { return s.Name == v.Name && s.Tenant == v.Tenant })
	f.record(who, "secret.undefine", name)
	return nil
}

// AssignSecret assigns one to a VM, or takes it away.
func (f *Fake) AssignSecret(_ context.Context, who api.Caller, name, tenant, vm string, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.secret(who, name, tenant)
	if v == nil {
		return notFound("secret", name)
	}
	v.VMs = slices.DeleteFunc(v.VMs, func(s string) bool { return s == vm })
	if on {
		v.VMs = append(v.VMs, vm)
	}
	f.record(who, "secret.assign", name)
	return nil
}

func (f *Fake) secret(who api.Caller, name, tenant string) *api.Secret {
	for i := range f.kept {
		if s := &f.kept[i]; s.Name == name && s.Tenant == cmp.Or(who.Tenant, tenant) {
			return s
		}
	}
	return nil
}
