package cli

import (
	"context"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/domainxml"
	"virt-attest/verifier/api"
	"virt-attest/verifier/endorsement"
	"virt-attest/verifier/host/sidecars"
	"virt-attest/verifier/inspect"
)

// vtpmCADir holds the certificates of the CA that certifies this host's vTPMs (sidecar/manufacture).
const vtpmCADir = "/var/lib/virt-attest/vtpm-ca"

// localIdentity is what a running vTPM is known by, as this host reads it.
type localIdentity struct {
	api.Identity
	Certified bool   `json:"certified"`         // its EK certificate is for this very key, and of this host's CA
	Problem   string `json:"problem,omitempty"` // why it is not, or why something is missing
}

// localCerts asks the vTPMs of running domains. It needs root, and no Verifier.
func (a *app) localCerts(ctx context.Context, args []string, f certFlags) error {
	if f.all != (len(args) == 0) || f.host {
		return fail(exitUsage, "with --local name one domain, or give --all")
	}
	list, err := a.domains()
	if err != nil {
		return err
	}
	issuers, err := endorsement.Load(vtpmCADir)
	if err != nil {
		return fail(exitConfig, "%v", err)
	}
	wanted := ""
	if len(args) == 1 {
		wanted = a.resolveAll(args)[0]
	}
	var ids []localIdentity
	for _, d := range list {
		if d.id >= 0 && d.enabled && (f.all || d.uuid.String() == wanted) {
			ids = append(ids, readIdentity(ctx, d, issuers))
		}
	}
	if f.all {
		return a.showLocal(ids)
	}
	if len(ids) == 0 {
		return fail(exitWrongState, "domain '%s' does not run here with a vTPM of virt-attest", clean(args[0]))
	}
	if done, err := a.structured(ids[0]); done && !f.pem {
		return err
	}
	if err := a.showCerts(&ids[0].Identity, f); err != nil || f.pem {
		return err
	}
	a.printf("%-16s %s\n", "Certified:", map[bool]string{true: "yes, by this host's CA", false: "no: " + clean(ids[0].Problem)}[ids[0].Certified])
	return nil
}

func (a *app) showLocal(ids []localIdentity) error {
	return showList(a, ids, func(i localIdentity) string { return i.Name }, []column[localIdentity]{
		{"Name", false, func(i localIdentity) string { return i.Name }},
		{"UUID", false, func(i localIdentity) string { return i.Machine }},
		{"EK name", false, func(i localIdentity) string { return dash(i.EKName.String()) }},
		{"AK name", false, func(i localIdentity) string { return dash(i.AKName.String()) }},
		{"Certified", false, func(i localIdentity) string { return yesNo(i.Certified) }},
		{"Problem", true, func(i localIdentity) string { return dash(i.Problem) }},
	})
}

// readIdentity asks one VM's sidecar for the EK, and its guest for the AK, which nothing has proven here.
func readIdentity(ctx context.Context, d domain, issuers *endorsement.Issuers) localIdentity {
	out := localIdentity{Identity: api.Identity{Machine: d.uuid.String(), Name: d.name, How: "read from the vTPM by this host; the attestation key is the guest's word"}}
	ctx, cancel := context.WithTimeout(ctx, localTime)
	defer cancel()
	conn, err := sidecars.Dialer{Dir: domainxml.RuntimeDir}.Dial(ctx, d.uuid)
	if err != nil {
		out.Problem = err.Error()
		return out
	}
	defer conn.Close()
	ek, err := conn.EK(ctx)
	if err != nil {
		out.Problem = err.Error()
		return out
	}
	name, err := quote.NameOf(ek.Public)
	if err != nil {
		out.Problem = err.Error()
		return out
	}
	out.EKName, out.EKSHA256 = attest.HexBytes(name), api.EKSHA256(ek.Public)
	out.EKPEM, _ = inspect.KeyPEM(ek.Public) // for display: what cannot be read is left out
	out.EKCert, out.Issuer, _ = inspect.CertPEM(ek.Cert)
	if err := issuers.Verify(ek.Cert, ek.Public, time.Now()); err != nil {
		out.Problem = err.Error()
	} else {
		out.Certified = true
	}
	var id agentproto.Identity
	if err := conn.Agent(ctx, agentproto.OpIdentity, nil, &id); err != nil {
		return out
	}
	if ak, err := quote.ParseAK(id.AK); err == nil {
		out.AKName = attest.HexBytes(ak.Name())
		out.AKPEM, _ = inspect.KeyPEM(id.AK)
	}
	return out
}
