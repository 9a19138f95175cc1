package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

// certFlags say which keys, and in what form.
type certFlags struct{ ek, ak, pem, host, all, local bool }

func (a *app) certsCmd() *cobra.Command {
	var f certFlags
	cmd := a.verb("certs DOMAIN | --all", "Show the endorsement and attestation keys that a machine is known by",
		rangeArgs(0, 1, "one domain (or, with --host, one host), or --all"),
		func(ctx context.Context, client *api.Client, args []string) error {
			switch {
			case f.all != (len(args) == 0):
				return fail(exitUsage, "name one domain, or give --all")
			case f.all && (f.pem || f.host || f.ek || f.ak):
				return fail(exitUsage, "--all is a list of VMs; for PEM name one")
			case f.all:
				return a.allCerts(ctx, client)
			}
			m, err := a.find(ctx, client, args[0], f.host)
			if err != nil {
				return err
			}
			id, err := client.Identity(ctx, m.id)
			if err != nil {
				return asked(err)
			}
			return a.showCerts(id, f)
		})
	fl := cmd.Flags()
	fl.BoolVar(&f.ek, "ek", false, "the endorsement key only")
	fl.BoolVar(&f.ak, "ak", false, "the attestation key only")
	fl.BoolVar(&f.pem, "pem", false, "PEM, for other tools: public keys, and the EK's certificate where there is one")
	fl.BoolVar(&f.host, "host", false, "the argument is a host's name or ID")
	fl.BoolVar(&f.local, "local", false, "ask the vTPMs that run on this host, and no Verifier")
	ask := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.local {
			return a.localCerts(cmd.Context(), args, f)
		}
		return ask(cmd, args)
	}
	fl.BoolVar(&f.all, "all", false, "a list of all VMs with the names of their keys")
	cmd.ValidArgsFunction = a.complete(false, a.domainNames)
	return cmd
}

func (a *app) allCerts(ctx context.Context, client *api.Client) error {
	ids, err := pages(ctx, a, "VMs", client.Identities)
	if err != nil {
		return err
	}
	return showList(a, ids, func(i api.Identity) string { return i.Name }, []column[api.Identity]{
		{"Name", false, func(i api.Identity) string { return i.Name }},
		{"UUID", false, func(i api.Identity) string { return i.Machine }},
		{"EK name", false, func(i api.Identity) string { return dash(i.EKName.String()) }},
		{"AK name", false, func(i api.Identity) string { return dash(i.AKName.String()) }},
		{"Host", true, func(i api.Identity) string { return dash(i.HostName) }},
		{"Known by", true, func(i api.Identity) string { return dash(i.How) }},
		{"Last seen", true, func(i api.Identity) string { return since(i.LastSeen) }},
	})
}

func (a *app) showCerts(id *api.Identity, f certFlags) error {
	if f.ek == f.ak {
		f.ek, f.ak = true, true
	}
	if f.pem {
		return a.printPEM(id, f)
	}
	if done, err := a.structured(id); done {
		return err
	}
	line := func(name, value string) {
		if value != "" {
			a.printf("%-16s %s\n", name+":", clean(value))
		}
	}
	line("Name", id.Name)
	line("Machine", id.Machine)
	if f.ek {
		line("EK SHA-256", id.EKSHA256)
		line("EK name", id.EKName.String())
		line("EK certificate", map[bool]string{true: "yes, of " + id.Issuer, false: "none"}[id.EKCert != ""])
	}
	if f.ak {
		line("AK name", id.AKName.String())
	}
	line("Known by", id.How)
	if id.HostName != "" || id.Host != "" {
		line("Host", strings.TrimSpace(id.HostName+" ("+id.Host+")"))
		line("Bound to host", bound(id.Link))
	}
	line("First seen", since(id.FirstSeen))
	line("Last seen", since(id.LastSeen))
	return nil
}

// bound says how a VM is bound to its host.
func bound(l api.LayerLink) string {
	switch {
	case l.OK:
		return "yes, by " + l.Scheme.String() + ", " + since(l.Time)
	case len(l.Reasons) > 0:
		return "not proven: " + l.Reasons[0].Text
	}
	return "not proven"
}

// printPEM prints PEM as the Verifier sent it, but for control characters.
func (a *app) printPEM(id *api.Identity, f certFlags) error {
	var blocks []string
	if f.ek {
		blocks = append(blocks, id.EKPEM, id.EKCert)
	}
	if f.ak {
		blocks = append(blocks, id.AKPEM)
	}
	some := false
	for _, b := range blocks {
		for l := range strings.Lines(b) {
			some = true
			a.printf("%s\n", clean(strings.TrimRight(l, "\r\n")))
		}
	}
	if !some {
		return fail(exitWrongState, "the Verifier has no such key of '%s' yet", clean(id.Name))
	}
	return nil
}
