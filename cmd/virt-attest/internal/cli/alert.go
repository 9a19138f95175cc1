package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

var alertColumns = []column[api.Alert]{
	{"ID", false, func(x api.Alert) string { return number(x.ID) }},
	{"Opened", false, func(x api.Alert) string { return since(x.Opened) }},
	{"Machine", false, func(x api.Alert) string { return dash(x.Name) }},
	{"State", false, func(x api.Alert) string { return dash(string(x.State)) }},
	{"Alert", false, func(x api.Alert) string { return x.Code }},
	{"Seen", true, func(x api.Alert) string { return strconv.Itoa(x.Count) + ", last " + since(x.Last) }},
	{"Handled", false, handled},
	{"Text", false, func(x api.Alert) string { return x.Text }},
	{"What to do", true, func(x api.Alert) string { return dash(x.Hint) }},
}

// handled says who has acknowledged an alert, or that it went away.
func handled(x api.Alert) string {
	switch {
	case !x.Closed.IsZero():
		return "closed"
	case x.AckedBy != "":
		return x.AckedBy
	case !x.Acked.IsZero():
		return "yes"
	}
	return "no"
}

func (a *app) alertCmd() *cobra.Command {
	var all bool
	list := a.verb("list", "List alerts: open ones, or --all", noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		alerts, err := client.Alerts(ctx, all)
		if err != nil {
			return asked(err)
		}
		return showList(a, alerts, func(x api.Alert) string { return number(x.ID) }, alertColumns)
	})
	list.Flags().BoolVar(&all, "all", false, "also those that are acknowledged or closed")
	ack := a.verb("ack ID...", "Say that somebody looks after alerts", someArgs("IDs of alerts"), func(ctx context.Context, client *api.Client, args []string) error {
		for _, arg := range args {
			id, err := strconv.ParseInt(arg, 10, 64)
			if err != nil {
				return fail(exitUsage, "'%s' is no alert's ID; see virt-attest alert list", clean(arg))
			}
			if _, err := client.AckAlert(ctx, id); err != nil {
				return asked(err)
			}
			a.printf("Alert %d acknowledged\n", id)
		}
		return nil
	})
	ack.ValidArgsFunction = a.complete(true, alertNames)
	return noun("alert", "What needs an operator", list, ack)
}

func alertNames(ctx context.Context, client *api.Client) ([]string, error) {
	l, err := client.Alerts(ctx, false)
	return pick(l, func(x api.Alert) string { return number(x.ID) + "\t" + clean(x.Text) }), err
}
