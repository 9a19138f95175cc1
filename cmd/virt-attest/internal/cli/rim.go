package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func (a *app) rimCmd() *cobra.Command {
	d := a.rimDocs()
	return noun("rim", "Reference values: what machines may be",
		append(d.commands(), a.rimCreateCmd(), a.rimAssignCmd(), a.rimAcceptCmd(), a.rimTestCmd(), a.rimExportCmd(), a.rimImportCmd())...)
}

// assignFlags say how reference values are assigned.
type assignFlags struct{ host, none, add bool }

func (a *app) rimAssignCmd() *cobra.Command {
	var f assignFlags
	cmd := a.verb("assign NAME... MACHINE", "Assign reference values to a VM, or with --host to a host", someArgs("names of reference values and a machine"),
		func(ctx context.Context, client *api.Client, args []string) error {
			names, machine := args[:len(args)-1], args[len(args)-1]
			if f.none != (len(names) == 0) || f.none && f.add {
				return fail(exitUsage, "names of reference values and a machine expected, or --none and a machine")
			}
			return a.rimAssign(ctx, client, names, machine, f)
		})
	cmd.Long = "Assigns reference values; several are a union. What was assigned before is replaced, unless --add is given. --none takes all away."
	cmd.Flags().BoolVar(&f.host, "host", false, "the machine is a host, by name or ID")
	cmd.Flags().BoolVar(&f.none, "none", false, "take all reference values away")
	cmd.Flags().BoolVar(&f.add, "add", false, "keep what is assigned already")
	cmd.ValidArgsFunction = a.assignable(api.DocRIM, &f.host)
	return cmd
}

func (a *app) rimAssign(ctx context.Context, client *api.Client, names []string, arg string, f assignFlags) error {
	m, err := a.find(ctx, client, arg, f.host)
	if err != nil {
		return err
	}
	err = change(ctx, client, m, func(s *api.Settings) {
		if !f.add {
			s.RIMs = []string{}
		}
		for _, n := range names {
			if !slices.Contains(s.RIMs, n) {
				s.RIMs = append(s.RIMs, n)
			}
		}
		names = s.RIMs
	})
	if err != nil {
		return err
	}
	if len(names) == 0 {
		a.printf("'%s' has no reference values any more\n", clean(arg))
		return nil
	}
	a.printf("'%s' is compared with '%s' from now on\n", clean(arg), clean(strings.Join(names, "', '")))
	return nil
}
