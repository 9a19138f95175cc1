package engine

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/quote"
	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// Direct makes the nonce for a VM that the caller asks itself. Nothing is on record of it: every replica can tell a nonce of
// the Verifier's from any other, and when it was made (made), and it counts once, when the link is asked for.
func (e *Engine) Direct(ctx context.Context, who api.Caller, vm string, r api.DirectRequest) (*api.DirectChallenge, error) {
	if r.Nonce == (attest.Nonce{}) {
		return nil, said(ErrInvalid, "bring a nonce of your own")
	}
	t, err := e.directTarget(ctx, who, vm)
	if err != nil {
		return nil, err
	}
	keys, err := e.madeKeys(ctx)
	if err != nil {
		return nil, err
	}
	issued := time.Now().Unix()
	made := madeFor(keys[0], t.vms[0], r.Nonce, issued)
	return &api.DirectChallenge{VM: t.vms[0], Nonce: binding.DirectNonce(r.Nonce, made), Made: made, Issued: issued}, nil
}

// directTarget finds the one VM, within what the caller's tenant has.
func (e *Engine) directTarget(ctx context.Context, who api.Caller, vm string) (*target, error) {
	t, err := e.allowed(ctx, who, &api.AttestRequest{VMs: []string{vm}, Scheme: attest.SchemeSEPA})
	if err == nil && len(t.vms) != 1 {
		err = said(ErrNotFound, "no VM %q is known", vm)
	}
	return t, err
}

// madeKeys are the keys of madeFor, the present one first: made of the keys that sign results, which all replicas have.
func (e *Engine) madeKeys(ctx context.Context) ([][]byte, error) {
	if _, err := e.keys(ctx); err != nil { // there is one
		return nil, err
	}
	rows, err := e.store.SigningKeys(ctx)
	if err != nil || len(rows) == 0 {
		return nil, errors.Join(fromStore(err, "signing keys"), err)
	}
	slices.SortFunc(rows, func(a, b store.SigningKey) int { return b.Created.Compare(a.Created) })
	out := make([][]byte, len(rows))
	for i, r := range rows {
		mac := hmac.New(sha256.New, r.Data)
		mac.Write([]byte("virt-attest/v1/direct-key\x00"))
		out[i] = mac.Sum(nil)
	}
	return out, nil
}

// madeFor is the Verifier's part of a direct challenge's nonce: nobody can tell it before it was given out.
func madeFor(key []byte, vm attest.UUID, own attest.Nonce, issued int64) (n attest.Nonce) {
	mac := hmac.New(sha256.New, key)
	mac.Write(vm[:])
	mac.Write(own[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(issued)))
	copy(n[:], mac.Sum(nil))
	return n
}

// Link takes what a VM has answered to a direct challenge, asks the VM's host for the link alone, and judges both as every
// other answer.
func (e *Engine) Link(ctx context.Context, who api.Caller, vm string, r api.LinkRequest) (*api.Link, error) {
	timeout, err := timeoutOf(r.Timeout)
	if err != nil {
		return nil, err
	}
	if err := r.Answer.Check(); err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	ak, err := quote.ParseAK(r.Answer.AK)
	if err != nil {
		return nil, said(ErrInvalid, "the VM's attestation key: %v", err)
	}
	t, err := e.directTarget(ctx, who, vm)
	if err != nil {
		return nil, err
	}
	if err := e.checkMade(ctx, t.vms[0], &r); err != nil {
		return nil, err
	}
	c, err := e.prepare(ctx, t, attest.SchemeSEPA, timeout)
	if err != nil {
		return nil, err
	}
	c.Nonce, c.Signer, c.known.Direct = binding.DirectNonce(r.Nonce, r.Made), ak.Name(), []api.DirectAnswer{r.Answer}
	c.Resume = slices.DeleteFunc(c.Resume, func(x attest.Resume) bool { return x.Machine == t.vms[0] }) // its log came whole
	report, err := e.linked(ctx, who, c)
	if err != nil {
		return nil, err
	}
	return &api.Link{Report: shown(who, report), Evidence: e.shownEvidence(ctx, c.id())}, nil
}

// checkMade refuses a nonce that is not the Verifier's for this VM and this caller's, or is too old: the VM could have answered
// to it at any time.
func (e *Engine) checkMade(ctx context.Context, vm attest.UUID, r *api.LinkRequest) error {
	now := time.Now().Unix()
	if r.Issued > now+int64(directSkew.Seconds()) || r.Issued < now-int64(directFor.Seconds()) {
		return said(ErrGone, "the challenge is older than %v; begin anew", directFor)
	}
	keys, err := e.madeKeys(ctx)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if want := madeFor(k, vm, r.Nonce, r.Issued); hmac.Equal(want[:], r.Made[:]) {
			return nil
		}
	}
	return said(ErrInvalid, "this is no challenge of the Verifier's for this VM")
}

// linked puts the challenge on record, which spends its nonce, and waits for the report.
func (e *Engine) linked(ctx context.Context, who api.Caller, c *asked) (*api.Report, error) {
	if !e.enter() {
		return nil, ErrUnavailable
	}
	defer e.wg.Done()
	w, ok := e.waits.add(c.Nonce, c.Host)
	if !ok {
		return nil, said(ErrBusy, "too many challenges are under way, or %d to this host", maxPerHost)
	}
	defer e.waits.drop(w)
	if err := e.put(ctx, c, who.Name, false); err != nil {
		return nil, err
	}
	return e.await(ctx, c, w)
}

// shownEvidence is what the caller needs to verify a link by itself: no log of the host's, nor its software. The tree above the
// VM's leaf holds other challenges as hashes over their nonces, which tell nothing.
func (e *Engine) shownEvidence(ctx context.Context, report string) []byte {
	ev, err := e.store.Evidence(ctx, report)
	if err != nil {
		return nil
	}
	ev.Host.IMA, ev.Host.BootLog, ev.Host.Software = attest.LogSegment{}, nil, nil
	for i := range ev.VMs {
		ev.VMs[i].IMA, ev.VMs[i].BootLog = attest.LogSegment{}, nil
	}
	b, err := ev.Encode()
	if err != nil {
		return nil
	}
	return b
}

// completeDirect puts what a VM has answered by itself to the host's part, where its link was asked for.
func (a *appraisal) completeDirect() {
	if len(a.known.Direct) != 1 || a.ev == nil || len(a.row.Challenge.VMs) != 1 {
		return
	}
	for i := range a.ev.VMs {
		v := &a.ev.VMs[i]
		if v.UUID != a.row.Challenge.VMs[0] || v.Status != attest.VMQuoted {
			continue
		}
		if err := a.known.Direct[0].Into(v); err != nil { // it was checked when it came
			a.e.log.Error("what a VM has answered cannot be read", "vm", v.UUID, "err", err)
			continue
		}
		a.completed = true
	}
}
