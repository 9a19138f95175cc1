package enforce

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// followVerdicts has VMs looked at whose verdict is another one.
func (k *Keeper) followVerdicts(ctx context.Context) {
	sub := k.conf.Board.Subscribe()
	defer sub.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sub.Changed():
		}
		for _, m := range sub.Take() {
			if vm, err := attest.ParseUUID(m); err == nil {
				k.Changed(vm, false)
			}
		}
	}
}

// followRules keeps the rules as the Verifier has them. Those that are known stay while it is away.
func (k *Keeper) followRules(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.rules:
		}
		if err := k.askRules(ctx); err != nil && ctx.Err() == nil {
			k.conf.Log.Debug("rules cannot be asked for", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(rulesRetry):
			}
			ring(k.rules)
		}
	}
}

func (k *Keeper) askRules(ctx context.Context) error {
	k.mu.Lock()
	hash := bytes.Clone(k.hash)
	var vms []attest.UUID
	for vm := range k.vms {
		vms = append(vms, vm)
	}
	k.mu.Unlock()
	for _, vm := range k.conf.VMs() {
		if !slices.Contains(vms, vm) {
			vms = append(vms, vm)
		}
	}
	slices.SortFunc(vms, attest.UUID.Compare)
	if vms = vms[:min(len(vms), attest.MaxVMs)]; len(vms) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	list, err := k.conf.Verifier.Rules(ctx, vms)
	if err != nil {
		return err
	}
	if len(list) != len(vms) {
		return errors.New("the Verifier gives rules for other VMs")
	}
	for _, vm := range k.takeRules(hash, vms, list) {
		k.Changed(vm, false)
	}
	return nil
}

// takeRules puts rules in place of those that were known, and gives the VMs whose rules are others.
func (k *Keeper) takeRules(hash []byte, vms []attest.UUID, list []api.Rule) (changed []attest.UUID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = hash
	for i, r := range list {
		if r.Machine != vms[i] {
			continue
		}
		was, known := k.state.Rules[r.Machine]
		if known && reflect.DeepEqual(was, r) {
			continue
		}
		if !known && len(k.state.Rules) >= maxKnown {
			k.forgetRule()
		}
		k.state.Rules[r.Machine] = r
		k.unset = true
		changed = append(changed, r.Machine)
	}
	return changed
}

// forgetRule makes room: a VM that does not run here can be asked for when it does. k.mu is held.
func (k *Keeper) forgetRule() {
	for vm := range k.state.Rules {
		if _, runs := k.state.VMs[vm]; !runs {
			delete(k.state.Rules, vm)
			return
		}
	}
}

// tellAll tells the Verifier what was done, in order, until it has taken or refused it.
func (k *Keeper) tellAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.mail:
		}
		for k.tellOne(ctx) {
			continue
		}
	}
}

func (k *Keeper) tellOne(ctx context.Context) (more bool) {
	k.mu.Lock()
	if len(k.state.Outbox) == 0 {
		k.mu.Unlock()
		return false
	}
	act := k.state.Outbox[0]
	k.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, callTime)
	err := k.conf.Verifier.Acted(call, act)
	cancel()
	var p *api.Problem
	if err != nil && !(errors.As(err, &p) && p.Status < http.StatusInternalServerError && p.Status != http.StatusTooManyRequests) {
		k.conf.Log.Debug("the Verifier cannot be told what was done", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(tellRetry):
			ring(k.mail)
		}
		return false
	}
	if err != nil {
		k.conf.Log.Warn("the Verifier does not take what was done", "vm", act.Machine, "action", act.Action, "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.state.Outbox) > 0 && k.state.Outbox[0] == act {
		k.state.Outbox = k.state.Outbox[1:]
		k.unset = true
	}
	return true
}
