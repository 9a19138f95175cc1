package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func (a *app) webhookCmd() *cobra.Command {
	list := a.verb("list", "List webhooks, with how delivery goes", noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		hooks, err := client.Webhooks(ctx)
		if err != nil {
			return asked(err)
		}
		return showList(a, hooks, func(w api.Webhook) string { return w.ID }, webhookColumns)
	})
	remove := a.verb("delete ID", "Remove a webhook", exactArgs(1, "the ID of one webhook"), func(ctx context.Context, client *api.Client, args []string) error {
		if err := client.DeleteWebhook(ctx, args[0]); err != nil {
			return asked(err)
		}
		a.printf("Webhook '%s' deleted\n", clean(args[0]))
		return nil
	})
	remove.ValidArgsFunction = a.complete(false, webhookNames)
	return noun("webhook", "Who is told of events", a.newWebhookCmd(), list, remove, a.testWebhookCmd())
}

var webhookColumns = []column[api.Webhook]{
	{"ID", false, func(w api.Webhook) string { return w.ID }},
	{"URL", false, func(w api.Webhook) string { return w.URL }},
	{"Events", false, func(w api.Webhook) string {
		if len(w.Kinds) == 0 {
			return "all"
		}
		return strings.Join(w.Kinds, ",")
	}},
	{"Tenant", true, func(w api.Webhook) string { return dash(w.Tenant) }},
	{"Enabled", false, func(w api.Webhook) string { return yesNo(w.Enabled) }},
	{"Delivered", false, func(w api.Webhook) string { return since(w.Last) }},
	{"Waiting", false, func(w api.Webhook) string { return strconv.Itoa(w.Pending) }},
	{"Failures", false, func(w api.Webhook) string { return strconv.Itoa(w.Failures) }},
	{"Error", true, func(w api.Webhook) string { return dash(w.Error) }},
}

func (a *app) newWebhookCmd() *cobra.Command {
	w := api.Webhook{Enabled: true}
	cmd := a.verb("create URL", "Have events sent to an address", exactArgs(1, "one URL"), func(ctx context.Context, client *api.Client, args []string) error {
		for _, k := range w.Kinds {
			if !slices.Contains(eventKinds(), k) {
				return fail(exitUsage, "unknown kind of event %q (%s)", clean(k), strings.Join(eventKinds(), ", "))
			}
		}
		w.URL = args[0]
		got, err := client.PutWebhook(ctx, w)
		if err != nil {
			return asked(err)
		}
		return a.showSecret(got, got.Secret, "webhook "+clean(got.ID)+" made. Its receiver checks signatures with this secret, which is shown this once")
	})
	cmd.Flags().StringSliceVar(&w.Kinds, "kind", nil, "only events of this `KIND` (may be repeated): "+strings.Join(eventKinds(), ", "))
	cmd.Flags().StringVar(&w.Tenant, "tenant", "", "only events of this `TENANT`'s VMs")
	_ = cmd.RegisterFlagCompletionFunc("kind", words(eventKinds()...))
	return cmd
}

func (a *app) testWebhookCmd() *cobra.Command {
	cmd := a.verb("test ID", "Send one event now", exactArgs(1, "the ID of one webhook"), func(ctx context.Context, client *api.Client, args []string) error {
		w, err := client.TestWebhook(ctx, args[0])
		if err != nil {
			return asked(err)
		}
		if done, err := a.structured(w); err != nil {
			return err
		} else if !done && w.Error == "" {
			a.printf("Webhook '%s' took the event\n", clean(w.ID))
		}
		if w.Error != "" {
			return fail(exitWrongState, "webhook '%s' did not take the event: %s", clean(w.ID), clean(w.Error))
		}
		return nil
	})
	cmd.ValidArgsFunction = a.complete(false, webhookNames)
	return cmd
}
