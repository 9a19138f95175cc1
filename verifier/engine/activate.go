package engine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/internal/credential"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

// secrets is what stands with a challenge while its answer is appraised.
type secrets struct {
	Tries int                    `json:"tries,omitempty"` // appraisals of it that were cut short
	Keys  map[attest.UUID]string `json:"keys,omitempty"`  // SHA-256 of the credentials' contents by VM, hexadecimal
}

func decodeSecrets(b []byte) (s secrets, err error) {
	if len(b) > 0 {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// hashed is how the content of a credential is kept: it is random, so its hash tells nothing of it.
func hashed(secret []byte) string {
	d := sha256.Sum256(secret)
	return hex.EncodeToString(d[:])
}

func activation(machine attest.UUID, ek []byte, ak attest.Name, secret []byte) (api.Activation, error) {
	blob, enc, err := credential.Make(rand.Reader, ek, ak, secret)
	return api.Activation{Machine: machine, CredentialBlob: blob, Secret: enc}, err
}

// opened reports whether machine's credential came back with the content that hash is of. The comparison
// takes the same time wherever they differ, and the content is told to nobody (CVE-2023-38201).
func opened(items []api.ActivatedKey, machine attest.UUID, hash string) bool {
	for _, it := range items {
		if it.Machine == machine {
			return hash != "" && subtle.ConstantTimeCompare([]byte(hashed(it.Secret)), []byte(hash)) == 1
		}
	}
	return false
}

// activate has the host's VMs open credentials for keys that are not on record. What was not opened when the
// challenge ends was not proven.
func (a *appraisal) activate(ctx context.Context, l *link.Linked, id *evaluate.Identity) error {
	if len(id.Unproven) == 0 {
		return nil
	}
	began := time.Now()
	var items []api.ActivatedKey
	var err error
	var ended bool // whether the host had the time that it needs
	if a.orphan {  // credentials may have gone out before, and may still come back
		if items, ended, err = a.found(ctx); err == nil && !ended && len(a.secrets.Keys) > 0 {
			items, ended, err = a.opening(ctx)
		}
	} else {
		items, ended, err = a.exchange(ctx, l, id)
	}
	if err != nil {
		return err
	}
	for _, vm := range id.Unproven {
		v, _ := l.VM(vm)
		ok := opened(items, vm, a.secrets.Keys[vm])
		if !ok && !ended {
			id.VMs[vm] = append(id.VMs[vm], keyPending(vm))
			continue
		}
		id.Prove(v, a.row.Challenge.Host, ok)
	}
	a.e.meter().Stage(StageActivate, time.Since(began))
	return nil
}

func keyPending(vm attest.UUID) appraise.Reason {
	return appraise.Reason{Code: appraise.CodeKeyPending, Layer: appraise.LayerVM,
		Text: "VM " + vm.String() + ": the Verifier was stopped while the VM's vTPM was to show that the attestation key lives in it",
		Hint: "Attest again: that enrols the key."}
}

// exchange sends credentials with the reply to the answer, and waits for what comes back.
func (a *appraisal) exchange(ctx context.Context, l *link.Linked, id *evaluate.Identity) (items []api.ActivatedKey, ended bool, err error) {
	r := &api.EvidenceReply{}
	a.secrets.Keys = make(map[attest.UUID]string)
	for _, vm := range id.Unproven {
		v, _ := l.VM(vm)
		secret := random()
		act, err := activation(vm, endorsementKey(a.ev, vm), v.AKName, secret[:])
		if err != nil {
			a.e.log.Warn("no credential can be made for a vTPM", "vm", vm.String(), "err", err)
			continue
		}
		a.secrets.Keys[vm] = hashed(secret[:])
		r.Activation = append(r.Activation, act)
	}
	if len(r.Activation) == 0 {
		return nil, true, nil
	}
	b, err := json.Marshal(a.secrets)
	if err != nil {
		return nil, false, err
	}
	if err := a.e.store.PutSecrets(ctx, a.row.Challenge.Nonce, b); err != nil {
		return nil, false, err
	}
	a.reply(r)
	a.step("credentials sent for %d vTPM keys that are not enrolled", len(r.Activation))
	a.e.at(stageActivate)
	return a.opening(ctx)
}

// opening waits for what the VMs' TPMs found in their credentials, until the challenge ends.
func (a *appraisal) opening(ctx context.Context) (items []api.ActivatedKey, ended bool, err error) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	end := time.NewTimer(time.Until(time.Unix(a.row.Challenge.NotAfter, 0)))
	defer end.Stop()
	for {
		select {
		case <-a.keys:
		case <-look.C:
		case <-end.C:
			a.step("the credentials did not come back in time")
			return nil, !a.orphan, nil
		case <-a.e.ctx.Done():
			return a.found(ctx)
		}
		if items, ok, err := a.found(ctx); ok || err != nil {
			a.step("%d credentials came back", len(items))
			return items, true, err
		}
	}
}

// found gives what a host has returned so far.
func (a *appraisal) found(ctx context.Context) (items []api.ActivatedKey, ok bool, err error) {
	b, err := a.e.store.Activation(ctx, a.row.Challenge.Nonce)
	if errors.Is(err, store.ErrNotFound) {
		return nil, false, nil
	}
	if err == nil {
		err = decoder().Unmarshal(b, &items)
	}
	return items, err == nil, err
}

func endorsementKey(ev *attest.Evidence, vm attest.UUID) []byte {
	for i := range ev.VMs {
		if ev.VMs[i].UUID == vm {
			return ev.VMs[i].EK
		}
	}
	return nil
}
