package cli

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/internal/sealed"
	"virt-attest/verifier/api"
)

// secretCmd is about secrets that the Verifier releases to VMs that are TRUSTED.
func (a *app) secretCmd() *cobra.Command {
	list := a.verb("list", "List secrets, without their values", noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		secrets, err := client.Secrets(ctx)
		if err != nil {
			return asked(err)
		}
		return showList(a, secrets, func(s api.Secret) string { return s.Name }, []column[api.Secret]{
			{"Name", false, func(s api.Secret) string { return s.Name }},
			{"Tenant", false, func(s api.Secret) string { return dash(s.Tenant) }},
			{"Bytes", false, func(s api.Secret) string { return number(int64(s.Size)) }},
			{"VMs", false, func(s api.Secret) string { return number(int64(len(s.VMs))) }},
			{"Modified", false, func(s api.Secret) string { return since(s.Modified) }},
			{"By", true, func(s api.Secret) string { return s.Author }},
			{"Assigned to", true, func(s api.Secret) string { return dash(strings.Join(s.VMs, ",")) }},
		})
	})
	return noun("secret", "Secrets for VMs, released to those that are TRUSTED", a.defineSecretCmd(), a.assignSecretCmd(true), a.assignSecretCmd(false), list, a.undefineSecretCmd())
}

func (a *app) defineSecretCmd() *cobra.Command {
	var file, tenant string
	cmd := a.verb("define NAME --file FILE", "Store a secret, or another value of one", exactArgs(1, "one name"), func(ctx context.Context, client *api.Client, args []string) error {
		value, err := a.secretValue(file)
		if err != nil {
			return err
		}
		defer clear(value)
		if err := client.PutSecret(ctx, args[0], api.SecretPut{Tenant: tenant, Value: value}); err != nil {
			return asked(err)
		}
		a.printf("Secret '%s' defined\n", clean(args[0]))
		return nil
	})
	cmd.Long = "The value is the file's content, byte for byte, 1 to 16384 bytes. It is kept encrypted, and leaves the Verifier only sealed to the vTPM of a VM\n" +
		"that it is assigned to and that is TRUSTED. It is never shown again."
	cmd.Flags().StringVar(&file, "file", "", "`FILE` with the value (-: standard input)")
	cmd.Flags().StringVar(&tenant, "tenant", "", "for VMs of this `TENANT` only")
	return cmd
}

// secretValue reads a value from a file; it is on no command line, which everybody could read.
func (a *app) secretValue(file string) ([]byte, error) {
	if file == "" {
		return nil, fail(exitUsage, "--file says where the value is")
	}
	in := a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fail(exitUsage, "%v", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	value, err := io.ReadAll(io.LimitReader(in, sealed.MaxSecret+1))
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	if len(value) == 0 || len(value) > sealed.MaxSecret {
		return nil, fail(exitUsage, "the value has not 1 to %d bytes", sealed.MaxSecret)
	}
	return value, nil
}

func (a *app) assignSecretCmd(on bool) *cobra.Command {
	use, short, did := "assign NAME DOMAIN...", "Release a secret to VMs whenever they are TRUSTED", "assigned to"
	if !on {
		use, short, did = "unassign NAME DOMAIN...", "Release a secret to VMs no more", "taken from"
	}
	var tenant string
	cmd := a.verb(use, short, func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return fail(exitUsage, "one name and at least one domain expected")
		}
		return nil
	}, func(ctx context.Context, client *api.Client, args []string) error {
		for _, d := range args[1:] {
			m, err := a.find(ctx, client, d, false)
			if err != nil {
				return err
			}
			if err := client.AssignSecret(ctx, args[0], tenant, m.id, on); err != nil {
				return asked(err)
			}
			a.printf("Secret '%s' %s '%s'\n", clean(args[0]), did, clean(d))
		}
		return nil
	})
	if on {
		cmd.Long = "The VM gets it with its next verdict; attest it for that to be now. What it has got stays with it."
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "the secret is of this `TENANT`")
	return cmd
}

func (a *app) undefineSecretCmd() *cobra.Command {
	var tenant string
	cmd := a.verb("undefine NAME", "Forget a secret", exactArgs(1, "one name"), func(ctx context.Context, client *api.Client, args []string) error {
		if err := client.DeleteSecret(ctx, args[0], tenant); err != nil {
			return asked(err)
		}
		a.printf("Secret '%s' undefined; VMs that got it have it\n", clean(args[0]))
		return nil
	})
	cmd.Flags().StringVar(&tenant, "tenant", "", "the secret is of this `TENANT`")
	return cmd
}
