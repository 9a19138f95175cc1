package cli

import (
	"context"
	"os"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/rim"
)

func (a *app) references(ctx context.Context, ev *attest.Evidence, f verifyFlags) (evaluate.References, error) {
	var lib rim.Library
	load := func(args []string) (rim.Set, error) {
		var set rim.Set
		for _, arg := range args {
			b, err := a.loadDoc(ctx, a.rimDocs(), arg)
			if err != nil {
				return nil, err
			}
			index, err := lib.Load(b)
			if err != nil {
				return nil, fail(exitConfig, "%s: %v", arg, err)
			}
			set = append(set, index)
		}
		return set, nil
	}
	vms, err := load(f.rims)
	if err != nil {
		return nil, err
	}
	host, err := load(f.hostRIMs)
	if err != nil {
		return nil, err
	}
	refs := evaluate.References{api.HostID(ev.Host.EK): host}
	for i := range ev.VMs {
		refs[ev.VMs[i].UUID.String()] = vms
	}
	return refs, nil
}

// loadDoc reads a file, and asks the Verifier only where there is none.
func (a *app) loadDoc(ctx context.Context, d *docs, arg string) ([]byte, error) {
	if _, err := os.Stat(arg); err == nil {
		return d.readFile(arg)
	}
	client, err := a.conf.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return d.load(ctx, client, arg)
}

// required is what a policy asks for; without one the strictest.
func (a *app) required(ctx context.Context, arg string) (appraise.Policy, error) {
	if arg == "" {
		return appraise.Policy{}, nil
	}
	b, err := a.loadDoc(ctx, a.policyDocs(), arg)
	if err != nil {
		return appraise.Policy{}, err
	}
	f, err := policy.Decode(b)
	if err != nil {
		return appraise.Policy{}, fail(exitConfig, "%s: %v", clean(arg), err)
	}
	return f.Appraisal(), nil
}

// verifyThere has the Verifier do it.
func (a *app) verifyThere(ctx context.Context, b []byte, ev *attest.Evidence, f verifyFlags) error {
	if f.insecure {
		return fail(exitUsage, "--server believes keys that are on record or in --trust-anchor, never the evidence itself")
	}
	r := api.VerifyRequest{Evidence: b, Anchors: api.VerifyAnchors{Enrolled: f.anchor == ""}, RIMs: map[string][]string{}, Policy: f.policy}
	if f.anchor != "" {
		keys, err := readAnchors(f.anchor)
		if err != nil {
			return err
		}
		r.Anchors.HostEK, r.Anchors.HostAK = keys.HostEKSHA256, attest.Name(keys.HostAKName)
		for _, v := range keys.VMs {
			r.Anchors.VMs = append(r.Anchors.VMs, api.VMAnchor{UUID: v.UUID, EKName: attest.Name(v.EKName), AKName: attest.Name(v.AKName)})
		}
	}
	if len(f.hostRIMs) > 0 {
		r.RIMs[api.HostID(ev.Host.EK)] = f.hostRIMs
	}
	for i := range ev.VMs {
		if len(f.rims) > 0 {
			r.RIMs[ev.VMs[i].UUID.String()] = f.rims
		}
	}
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	defer client.Close()
	report, err := client.Verify(ctx, r)
	if err != nil {
		return asked(err)
	}
	return a.showReports([]*api.Report{report})
}
