package cli

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func (a *app) enrolTokenCmd() *cobra.Command {
	list := a.verb("list", "List enrolment tokens", noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		tokens, err := client.EnrolTokens(ctx)
		if err != nil {
			return asked(err)
		}
		return showList(a, tokens, func(t api.EnrolToken) string { return t.ID }, []column[api.EnrolToken]{
			{"ID", false, func(t api.EnrolToken) string { return t.ID }},
			{"For host", false, func(t api.EnrolToken) string { return cmp.Or(t.Name, "any") }},
			{"Expires", false, func(t api.EnrolToken) string { return until(t.Expires) }},
			{"Used by", false, func(t api.EnrolToken) string { return dash(t.UsedBy) }},
			{"Created", true, func(t api.EnrolToken) string { return since(t.Created) }},
		})
	})
	remove := a.verb("delete ID", "Take an enrolment token back", exactArgs(1, "the ID of one token"), func(ctx context.Context, client *api.Client, args []string) error {
		if err := client.DeleteEnrolToken(ctx, args[0]); err != nil {
			return asked(err)
		}
		a.printf("Enrolment token '%s' deleted\n", clean(args[0]))
		return nil
	})
	remove.ValidArgsFunction = a.complete(false, enrolTokenNames)
	cmd := noun("enroll-token", "One-time tokens that admit a host without an operator", a.newEnrolTokenCmd(), list, remove)
	cmd.Aliases = []string{"enrol-token"}
	return cmd
}

func (a *app) newEnrolTokenCmd() *cobra.Command {
	var ttl time.Duration
	cmd := a.verb("create [HOST]", "Make a token that admits one host, once", rangeArgs(0, 1, "at most one host's name"),
		func(ctx context.Context, client *api.Client, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			t, err := client.NewEnrolToken(ctx, name, ttl.Seconds())
			if err != nil {
				return asked(err)
			}
			return a.showSecret(t, t.Secret, "the token goes to the host's enrolment, over a way that you trust; it is shown this once and expires "+until(t.Expires))
		})
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it can be used")
	return cmd
}

// showSecret prints a new secret alone on standard output, and what to do with it on the side.
func (a *app) showSecret(v any, secret, remark string) error {
	if done, err := a.structured(v); done {
		return err
	}
	a.remark("virt-attest: %s", remark)
	a.printf("%s\n", clean(secret))
	return nil
}

// until says how long something lasts still.
func until(t time.Time) string {
	d := time.Until(t)
	switch {
	case t.IsZero():
		return "never"
	case d <= 0:
		return "expired"
	case d < time.Hour:
		return fmt.Sprintf("in %dm", int(d.Round(time.Minute).Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("in %dh", int(d.Round(time.Hour).Hours()))
	}
	return t.Local().Format("2006-01-02 15:04")
}
