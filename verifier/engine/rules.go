package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/channel"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// Rules gives what a host shall do to VMs by their verdicts: those that run there, or that start there now.
func (e *Engine) Rules(ctx context.Context, client string, r *api.RulesRequest) (*api.Rules, error) {
	if _, err := e.acceptedHost(ctx, client, r.Host); err != nil {
		return nil, err
	}
	if len(r.VMs) > attest.MaxVMs {
		return nil, said(ErrInvalid, "more than %d VMs", attest.MaxVMs)
	}
	ids := make([]string, len(r.VMs))
	for i, vm := range r.VMs {
		ids[i] = vm.String()
	}
	bases, _, err := e.subjects(ctx, ids)
	if err != nil {
		return nil, fromStore(err, "policies")
	}
	list, err := e.rulesFor(ctx, ids, bases)
	if err != nil {
		return nil, fromStore(err, "rules")
	}
	return &api.Rules{Items: list}, nil
}

// acceptedHost is speaksFor for what only an accepted host may ask.
func (e *Engine) acceptedHost(ctx context.Context, client, id string) (*store.Host, error) {
	h, err := e.speaksFor(ctx, client, id)
	if err == nil && !h.Approved() {
		err = said(ErrForbidden, "nobody has approved this host")
	}
	if err != nil {
		return nil, err
	}
	e.lines.hear(id, time.Now())
	return h, nil
}

// rulesFor makes the rules of VMs, in their order, of what they are appraised by.
func (e *Engine) rulesFor(ctx context.Context, ids []string, bases map[string]basis) ([]api.Rule, error) {
	if len(ids) == 0 {
		return []api.Rule{}, nil
	}
	secrets, err := e.store.SecretsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]api.Rule, 0, len(ids))
	for _, id := range ids {
		vm, err := attest.ParseUUID(id)
		if err != nil {
			return nil, err
		}
		x := bases[id].Schedule
		n := x.Enforce
		out = append(out, api.Rule{Machine: vm, Policy: x.Name, Action: n.Action, On: n.On, Grace: time.Duration(n.Grace), Undo: n.Undo,
			Gate: n.Gate.On, Limit: time.Duration(n.Gate.Limit), Otherwise: n.Gate.Otherwise, Links: n.Gate.Links, Secrets: secretsPrint(secrets[id])})
	}
	return out, nil
}

// secretsPrint changes with what is assigned to a VM.
func secretsPrint(list []store.Secret) []byte {
	if len(list) == 0 {
		return nil
	}
	h := sha256.New()
	for _, s := range list {
		_, _ = fmt.Fprintf(h, "%s\x00%s\x00", s.Tenant, s.Name)
		_ = binary.Write(h, binary.BigEndian, s.Version) // a hash never fails
	}
	return h.Sum(nil)[:16]
}

// fingerprintOf changes with rules that have a host do something; nil: none of them has.
func fingerprintOf(list []api.Rule) []byte {
	list = slices.DeleteFunc(slices.Clone(list), func(r api.Rule) bool { return r.Action == "report" && !r.Gate && len(r.Secrets) == 0 })
	if len(list) == 0 {
		return nil
	}
	b, err := channel.Encode(list)
	if err != nil { // of our own making
		b = []byte(err.Error())
	}
	d := sha256.Sum256(b)
	return d[:16]
}

// Acted notes what a host did to its VMs: in the audit log, and among the events.
func (e *Engine) Acted(ctx context.Context, client string, a *api.Acted) error {
	h, err := e.acceptedHost(ctx, client, a.Host)
	if err != nil {
		return err
	}
	if len(a.Acts) > api.MaxActs {
		return said(ErrInvalid, "more than %d acts", api.MaxActs)
	}
	claims, err := e.store.Claims(ctx, h.ID)
	if err != nil {
		return fromStore(err, "host "+h.ID)
	}
	var ids []string
	for i := range a.Acts {
		if err := checkAct(&a.Acts[i]); err != nil {
			return err
		}
		ids = append(ids, a.Acts[i].Machine.String())
	}
	tenants, err := e.store.TenantsOf(ctx, ids)
	if err != nil {
		return fromStore(err, "VMs")
	}
	var all []store.Trail
	for _, act := range a.Acts {
		ran, err := e.ranOn(ctx, h.ID, act.Machine, claims)
		if err != nil {
			return err
		}
		if ran == nil {
			return said(ErrForbidden, "VM %v does not run on this host", act.Machine)
		}
		all = append(all, e.actTrail(h, &act, ran.Name, tenants[act.Machine.String()]))
	}
	return fromStore(e.store.Leave(ctx, all...), "the audit log")
}

func checkAct(a *api.Act) error {
	actions := []string{api.ActPause, api.ActResume, api.ActLinkDown, api.ActLinkUp, api.ActShutdown, api.ActDestroy, api.ActSecrets, api.ActGate}
	whys := []string{api.WhyVerdict, api.WhyTrusted, api.WhyStart, api.WhyLimit, api.WhyRule}
	if !slices.Contains(actions, a.Action) || !slices.Contains(whys, a.Why) || a.State != "" && !slices.Contains(states(), a.State) ||
		len(a.Problem) > api.MaxActProblem || checkText(a.Problem) != nil || len(a.Report) > 2*len(attest.Nonce{}) || checkWord(a.Report) != nil {
		return said(ErrInvalid, "this is nothing that a host does")
	}
	return nil
}

// ranOn gives the claim of a host on a VM that runs there, or has ended a moment ago and is nowhere else; nil: neither.
func (e *Engine) ranOn(ctx context.Context, host string, vm attest.UUID, claims []store.Claim) (*store.Claim, error) {
	for i := range claims {
		if claims[i].UUID == vm {
			return &claims[i], nil
		}
	}
	known, err := e.store.VTPMs(ctx, vm, nil)
	if err != nil {
		return nil, fromStore(err, "this VM")
	}
	for _, v := range known {
		if v.Host == host || v.Host == "" {
			return &store.Claim{UUID: vm, Host: host}, nil
		}
	}
	return nil, nil
}

func (e *Engine) actTrail(h *store.Host, a *api.Act, name, tenant string) store.Trail {
	vm := a.Machine.String()
	detail := map[string]string{"why": a.Why, "state": string(a.State), "report": a.Report, "host_time": time.UnixMilli(a.Time).UTC().Format(time.RFC3339)}
	if a.Problem != "" {
		detail["problem"] = a.Problem
	}
	if name == "" {
		name = vm
	}
	return e.trail(api.Caller{Name: "host:" + h.ID}, "vm."+a.Action, vm, detail, api.Event{Kind: api.EventAction, Machine: vm, Name: name, Host: h.ID,
		Tenant: tenant, State: a.State, Report: a.Report, Text: actText(a, name, h.Name)})
}

// actText is the sentence that people read.
func actText(a *api.Act, vm, host string) string {
	did := map[string]string{api.ActPause: "paused", api.ActResume: "resumed", api.ActLinkDown: "cut from the network", api.ActLinkUp: "given its network back",
		api.ActShutdown: "asked to shut down", api.ActDestroy: "destroyed", api.ActSecrets: "given its secrets", api.ActGate: "let through the start gate"}[a.Action]
	why := map[string]string{api.WhyVerdict: "it is " + string(a.State), api.WhyTrusted: "it is TRUSTED", api.WhyStart: "its boot is not TRUSTED yet",
		api.WhyLimit: "the start gate's limit is over", api.WhyRule: "its policy does not call for more"}[a.Why]
	if a.Why == api.WhyStart && a.State == appraise.Untrusted {
		why = "its boot is UNTRUSTED"
	}
	if a.Problem != "" {
		return fmt.Sprintf("%s could not be %s by host %s, because %s: %s", vm, did, host, why, a.Problem)
	}
	return fmt.Sprintf("%s was %s by host %s: %s", vm, did, host, why)
}

// errNotReleased is why a VM gets nothing now.
func errNotReleased(format string, args ...any) error {
	return said(ErrConflict, "no secret is released: "+format, args...)
}

var errNoVault = errors.New("this Verifier has no key for secrets")
