package apitest

import (
	"context"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/verifier/api"
)

// Direct gives a challenge that is as good as any.
func (f *Fake) Direct(ctx context.Context, who api.Caller, vm string, r api.DirectRequest) (*api.DirectChallenge, error) {
	v, err := f.VM(ctx, who, vm)
	if err != nil {
		return nil, err
	}
	made := attest.Nonce{1}
	return &api.DirectChallenge{VM: v.UUID, Nonce: binding.DirectNonce(r.Nonce, made), Made: made, Issued: f.Now().Unix()}, nil
}

// Link answers by what is on record, without evidence.
func (f *Fake) Link(ctx context.Context, who api.Caller, vm string, r api.LinkRequest) (*api.Link, error) {
	rep, err := f.Attest(ctx, who, api.AttestRequest{VMs: []string{vm}, Scheme: attest.SchemeSEPA, Timeout: r.Timeout})
	if err != nil {
		return nil, err
	}
	return &api.Link{Report: rep, Evidence: []byte{}}, nil
}
