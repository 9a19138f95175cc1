package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/rim"
	"virt-attest/verifier/store"
)

// visible gives the one spelling of a machine that the caller may see: a VM of the caller's tenant, or any machine that hosts
// have told of.
func (e *Engine) visible(ctx context.Context, who api.Caller, id string) (string, error) {
	m, err := machine(id)
	if err != nil || who.Tenant == "" {
		return m, err
	}
	tenants, err := e.store.TenantsOf(ctx, []string{m})
	if err != nil {
		return "", fromStore(err, "machine "+m)
	}
	if tenants[m] != who.Tenant { // a host has none
		return "", said(ErrNotFound, "machine %s is not known", m)
	}
	return m, nil
}

// Settings gives what operators have said about a machine.
func (e *Engine) Settings(ctx context.Context, who api.Caller, id string) (*api.Settings, error) {
	m, err := e.visible(ctx, who, id)
	if err != nil {
		return nil, err
	}
	s, err := e.store.Settings(ctx, m)
	if err != nil {
		return nil, fromStore(err, "machine "+m)
	}
	asleep, err := e.store.Suspensions(ctx, []string{m}, time.Now())
	if err != nil {
		return nil, fromStore(err, "machine "+m)
	}
	if v, ok := asleep[m]; ok {
		s.Suspended = &v
	}
	return &s, nil
}

// PutSettings gives a machine its policy, reference values and tenant, in place of those that it had. Where that
// changes what it is appraised by, its verdict is made anew.
func (e *Engine) PutSettings(ctx context.Context, who api.Caller, id string, s api.Settings) error {
	return e.ChangeSettings(ctx, who, id, func(api.Settings) (api.Settings, error) { return s, nil })
}

// ChangeSettings is PutSettings of what change makes of the settings that the machine has. Where somebody else is faster, at whatever replica,
// change is asked again.
func (e *Engine) ChangeSettings(ctx context.Context, who api.Caller, id string, change func(api.Settings) (api.Settings, error)) error {
	m, err := machine(id)
	if err != nil {
		return err
	}
	if err := allTenants(who); err != nil {
		return err
	}
	for range settingsTries {
		before, err := e.Settings(ctx, who, m)
		if err != nil {
			return err
		}
		after, err := change(*before)
		if err != nil {
			return err
		}
		before.Suspended = nil
		if err = e.replaceSettings(ctx, who, m, *before, after); !errors.Is(err, ErrChanged) {
			return err
		}
	}
	return said(ErrConflict, "the settings of machine %s do not stand still", m)
}

func (e *Engine) replaceSettings(ctx context.Context, who api.Caller, m string, before, s api.Settings) error {
	if err := first(checkSettings(m, s), e.haveActive(ctx, s)); err != nil {
		return err
	}
	by := e.trail(who, "machine.settings", m, map[string]api.Settings{"before": before, "after": s}, api.Event{
		Kind: api.EventSettings, Machine: m, Tenant: s.Tenant, Text: fmt.Sprintf("settings of %s were changed by %s: policy %s, reference values %s", m, who.Name,
			nameOr(s.Policy, "default"), nameOr(strings.Join(s.RIMs, ", "), "none"))})
	err := e.store.ReplaceSettings(ctx, m, before, s, by)
	if errors.Is(err, store.ErrConflict) {
		return said(ErrNotFound, "the policy, or reference values of one of these names, are not known")
	}
	if err != nil {
		return fromStore(err, "machine "+m)
	}
	e.log.Info("settings of a machine changed", "machine", m, "policy", s.Policy, "rims", s.RIMs, "tenant", s.Tenant, "by", who.Name)
	_, err = e.reappraise(ctx, who, m)
	return err
}

// checkSettings holds settings to their bounds.
func checkSettings(m string, s api.Settings) error {
	if len(s.RIMs) > maxAssigned {
		return said(ErrInvalid, "more than %d reference values for one machine", maxAssigned)
	}
	for _, r := range s.RIMs {
		if err := rim.CheckName(r); err != nil {
			return said(ErrInvalid, "%v", err)
		}
	}
	if s.Policy != "" {
		if err := policy.CheckName(s.Policy); err != nil {
			return said(ErrInvalid, "%v", err)
		}
	}
	if checkWord(s.Tenant) != nil {
		return said(ErrInvalid, "a tenant is called by at most %d letters, digits and . _ -", maxWord)
	}
	if s.Tenant != "" && !isVM(m) {
		return said(ErrInvalid, "a host has no tenant")
	}
	return nil
}

// isVM tells a VM's UUID from a host's ID.
func isVM(m string) bool { return strings.Contains(m, "-") }

// haveActive refuses a policy of which no version is active: nothing could be appraised by it.
func (e *Engine) haveActive(ctx context.Context, s api.Settings) error {
	if s.Policy == "" {
		return nil
	}
	_, _, err := e.store.Active(ctx, api.DocPolicy, s.Policy)
	if !errors.Is(err, store.ErrNotFound) {
		return fromStore(err, "policies")
	}
	if _, err := e.store.Versions(ctx, api.DocPolicy, s.Policy); err != nil {
		return fromStore(err, "policy "+s.Policy)
	}
	return said(ErrConflict, "no version of policy %s is active", s.Policy)
}
