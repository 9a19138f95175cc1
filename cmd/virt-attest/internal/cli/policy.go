package cli

import (
	"context"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func (a *app) policyCmd() *cobra.Command {
	d := a.policyDocs()
	return noun("policy", "Policies: what is required of machines, and how often they are asked", append(d.commands(), a.policyAssignCmd())...)
}

func (a *app) policyAssignCmd() *cobra.Command {
	var host bool
	cmd := a.verb("assign NAME MACHINE", "Give a VM a policy, or with --host a host", exactArgs(2, "a policy's name and a machine"),
		func(ctx context.Context, client *api.Client, args []string) error {
			m, err := a.find(ctx, client, args[1], host)
			if err != nil {
				return err
			}
			if err := change(ctx, client, m, func(s *api.Settings) { s.Policy = args[0] }); err != nil {
				return err
			}
			a.printf("'%s' has policy '%s' from now on\n", clean(args[1]), clean(args[0]))
			return nil
		})
	cmd.Flags().BoolVar(&host, "host", false, "the machine is a host, by name or ID")
	cmd.ValidArgsFunction = a.assignable(api.DocPolicy, &host)
	return cmd
}

// assignable completes a document's name and then a machine's.
func (a *app) assignable(kind api.DocKind, host *bool) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if *host {
			return a.complete(true, docNames(kind), hostNames)(c, args, word)
		}
		return a.complete(true, docNames(kind), a.domainNames)(c, args, word)
	}
}

// change changes what operators have said about a machine.
func change(ctx context.Context, client *api.Client, m *machine, f func(*api.Settings)) error {
	s, err := client.Settings(ctx, m.id)
	if err != nil {
		return asked(err)
	}
	f(s)
	return asked(client.PutSettings(ctx, m.id, *s))
}

func (a *app) tenantCmd() *cobra.Command {
	var none bool
	cmd := a.verb("tenant DOMAIN NAME | --none DOMAIN", "Give a VM to a tenant", rangeArgs(1, 2, "a domain and a tenant's name, or --none and a domain"),
		func(ctx context.Context, client *api.Client, args []string) error {
			if none != (len(args) == 1) {
				return fail(exitUsage, "a domain and a tenant's name expected, or --none and a domain")
			}
			m, err := a.find(ctx, client, args[0], false)
			if err != nil {
				return err
			}
			tenant := ""
			if !none {
				tenant = args[1]
			}
			if err := change(ctx, client, m, func(s *api.Settings) { s.Tenant = tenant }); err != nil {
				return err
			}
			if none {
				a.printf("'%s' has no tenant any more\n", clean(args[0]))
			} else {
				a.printf("'%s' belongs to tenant '%s' from now on\n", clean(args[0]), clean(tenant))
			}
			return nil
		})
	cmd.Flags().BoolVar(&none, "none", false, "take it away from its tenant")
	cmd.ValidArgsFunction = a.complete(false, a.domainNames)
	return cmd
}
