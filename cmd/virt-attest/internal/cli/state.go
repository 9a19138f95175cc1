package cli

import (
	"context"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func (a *app) stateCmd() *cobra.Command {
	var reason bool
	cmd := a.machineVerb("state DOMAIN", "Show a machine's state in one word",
		func(_ context.Context, _ *api.Client, m *machine) error { return a.showState(&m.result, reason) })
	cmd.Flags().BoolVar(&reason, "reason", false, "also the code of the reason that decides")
	return cmd
}

// brief is a machine's state for programs.
type brief struct {
	Name   string         `json:"name"`
	State  appraise.State `json:"state"`
	Reason appraise.Code  `json:"reason,omitempty"`
}

func (a *app) showState(r *appraise.Result, reason bool) error {
	b := brief{Name: label(*r), State: r.State, Reason: decisive(*r)}
	done, err := a.structured(b)
	switch {
	case err != nil:
		return err
	case done:
	case reason && b.Reason != "":
		a.printf("%s (%s)\n", a.colour(b.State), b.Reason)
	default:
		a.printf("%s\n", a.colour(b.State))
	}
	return verdict([]appraise.State{r.State})
}
