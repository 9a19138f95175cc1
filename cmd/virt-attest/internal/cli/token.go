package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func roles() []string {
	return []string{string(api.RoleViewer), string(api.RoleScheduler), string(api.RoleOperator), string(api.RoleAdmin)}
}

func (a *app) tokenCmd() *cobra.Command {
	list := a.verb("list", "List bearer tokens", noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		tokens, err := client.Tokens(ctx)
		if err != nil {
			return asked(err)
		}
		return showList(a, tokens, func(t api.Token) string { return t.ID }, []column[api.Token]{
			{"ID", false, func(t api.Token) string { return t.ID }},
			{"Name", false, func(t api.Token) string { return t.Name }},
			{"Role", false, func(t api.Token) string { return string(t.Role) }},
			{"Tenant", false, func(t api.Token) string { return dash(t.Tenant) }},
			{"Expires", false, func(t api.Token) string { return until(t.Expires) }},
			{"Last used", false, func(t api.Token) string { return since(t.LastUsed) }},
			{"Created", true, func(t api.Token) string { return since(t.Created) }},
		})
	})
	remove := a.verb("delete ID", "Take a token's right away, at once", exactArgs(1, "the ID of one token"), func(ctx context.Context, client *api.Client, args []string) error {
		if err := client.DeleteToken(ctx, args[0]); err != nil {
			return asked(err)
		}
		a.printf("Token '%s' deleted\n", clean(args[0]))
		return nil
	})
	remove.ValidArgsFunction = a.complete(false, tokenNames)
	return noun("token", "Bearer tokens, by which programs and browsers ask the Verifier", a.newTokenCmd(), list, remove)
}

func (a *app) newTokenCmd() *cobra.Command {
	var r api.TokenRequest
	var role, file string
	var ttl time.Duration
	cmd := a.verb("create NAME --role ROLE", "Make a token", exactArgs(1, "one name for the token"), func(ctx context.Context, client *api.Client, args []string) error {
		if !slices.Contains(roles(), role) {
			return fail(exitUsage, "--role is one of %s", strings.Join(roles(), ", "))
		}
		r.Name, r.Role, r.TTL = args[0], api.Role(role), ttl.Seconds()
		t, err := client.NewToken(ctx, r)
		if err != nil {
			return asked(err)
		}
		if file == "" {
			return a.showSecret(t, t.Secret, "token "+t.ID+" expires "+until(t.Expires)+"; it is shown this once. Keep it in a file that only its user can read (token_file)")
		}
		if err := writeFile(file, []byte(t.Secret+"\n")); err != nil {
			return err
		}
		a.printf("Token '%s' written to %s\n", clean(t.ID), file)
		return nil
	})
	fl := cmd.Flags()
	fl.StringVar(&role, "role", "", "what its holder may do: "+strings.Join(roles(), ", "))
	fl.StringVar(&r.Tenant, "tenant", "", "sees the VMs of this `TENANT` only")
	fl.DurationVar(&ttl, "ttl", 90*24*time.Hour, "how long it is good for, from 1m to 8784h")
	fl.StringVar(&file, "save", "", "write it to `FILE`, which only its owner can read, instead of standard output")
	_ = cmd.RegisterFlagCompletionFunc("role", words(roles()...))
	return cmd
}
