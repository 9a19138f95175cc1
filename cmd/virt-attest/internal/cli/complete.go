package cli

import (
	"context"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

// names asks the Verifier for what could be meant.
type names func(ctx context.Context, client *api.Client) ([]string, error)

// nothing completes nothing, not even files.
func nothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// files leaves completion to the shell.
func files(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// words completes fixed words.
func words(list ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// complete completes the first argument by the first of lists, and so on; the last one's list is for all that follow
// where more is set.
func (a *app) complete(more bool, lists ...names) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		at := len(args)
		if at >= len(lists) && more {
			at = len(lists) - 1
		}
		if at >= len(lists) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.known(cmd, lists[at]), cobra.ShellCompDirectiveNoFileComp
	}
}

// known asks the Verifier, and gives nothing where that takes long or fails.
func (a *app) known(cmd *cobra.Command, list names) []string {
	if a.prepare() != nil {
		return nil
	}
	client, err := a.conf.client()
	if err != nil {
		return nil
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completing)
	defer cancel()
	out, err := list(ctx, client)
	if err != nil {
		return nil
	}
	for i := range out {
		out[i] = clean(out[i])
	}
	return out
}

// flagNames completes a flag's value.
func (a *app) flagNames(cmd *cobra.Command, flag string, list names) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.known(cmd, list), cobra.ShellCompDirectiveNoFileComp
	})
}

// domainNames are domains of the local libvirt, and VMs that the Verifier knows.
func (a *app) domainNames(ctx context.Context, client *api.Client) ([]string, error) {
	var out []string
	local, err := a.domains()
	seen := map[string]bool{}
	for _, d := range local {
		seen[d.name] = true
		out = append(out, d.name)
	}
	l, err2 := client.VMPage(ctx, api.MachineFilter{}, api.Page{Limit: api.MaxPageSize})
	if err2 != nil {
		return out, err
	}
	for _, v := range l.Items {
		if !seen[v.Name] {
			seen[v.Name] = true
			out = append(out, v.Name)
		}
	}
	return out, nil
}

func hostNames(ctx context.Context, client *api.Client) ([]string, error) {
	l, err := client.HostPage(ctx, api.MachineFilter{}, api.Page{Limit: api.MaxPageSize})
	if err != nil {
		return nil, err
	}
	return pick(l.Items, func(h api.Host) string { return h.Name }), nil
}

func docNames(kind api.DocKind) names {
	return func(ctx context.Context, client *api.Client) ([]string, error) {
		l, err := client.Documents(ctx, kind)
		return pick(l, func(d api.Document) string { return d.Name }), err
	}
}

func tokenNames(ctx context.Context, client *api.Client) ([]string, error) {
	l, err := client.Tokens(ctx)
	return pick(l, func(t api.Token) string { return t.ID }), err
}

func enrolTokenNames(ctx context.Context, client *api.Client) ([]string, error) {
	l, err := client.EnrolTokens(ctx)
	return pick(l, func(t api.EnrolToken) string { return t.ID }), err
}

func webhookNames(ctx context.Context, client *api.Client) ([]string, error) {
	l, err := client.Webhooks(ctx)
	return pick(l, func(w api.Webhook) string { return w.ID }), err
}

// pick gives one text of each item.
func pick[T any](items []T, text func(T) string) []string {
	out := make([]string, len(items))
	for i, it := range items {
		out[i] = text(it)
	}
	return out
}
