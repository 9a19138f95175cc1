package cli

import (
	"context"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func (a *app) whyCmd() *cobra.Command {
	cmd := a.machineVerb("why DOMAIN", "Explain a machine's state: every reason, what to do, and the command for it",
		func(ctx context.Context, client *api.Client, m *machine) error {
			settings, err := client.Settings(ctx, m.id)
			if err != nil {
				return asked(err)
			}
			return a.showWhy(m, settings)
		})
	return cmd
}

// explained is one reason of why for programs.
type explained struct {
	appraise.Reason
	Commands []string `json:"commands"`
}

// explanation is why for programs.
type explanation struct {
	Name    string            `json:"name"`
	State   appraise.State    `json:"state"`
	Reasons []explained       `json:"reasons"`
	Notes   []appraise.Reason `json:"notes,omitempty"`
}

func (a *app) showWhy(m *machine, s *api.Settings) error {
	e := explanation{Name: m.name, State: m.result.State, Reasons: []explained{}, Notes: m.result.Notes}
	for _, r := range m.result.Reasons {
		e.Reasons = append(e.Reasons, explained{r, advice(m, s, r)})
	}
	if done, err := a.structured(e); err != nil {
		return err
	} else if !done {
		a.explain(m, e)
	}
	return verdict([]appraise.State{e.State})
}

func (a *app) explain(m *machine, e explanation) {
	a.printf("%s is %s", clean(m.name), a.colour(e.State))
	if t := m.result.Time; !t.IsZero() {
		a.printf(" (attested %s)", since(t))
	}
	a.printf(": %s.\n", meaning(e.State))
	said := map[string]bool{}
	for i, r := range e.Reasons {
		a.printf("\n%d. %s (%s): %s\n", i+1, r.Code, r.Layer, clean(r.Text))
		if r.Hint != "" && !said[r.Hint] {
			said[r.Hint] = true
			a.printf("   What to do: %s\n", clean(r.Hint))
		}
		for _, c := range r.Commands {
			if !said[c] {
				said[c] = true
				a.printf("     %s\n", clean(c))
			}
		}
	}
	for _, n := range e.Notes {
		a.printf("\nNote: %s: %s\n", n.Code, clean(n.Text))
	}
}

// meaning says a state in a sentence.
func meaning(s appraise.State) string {
	switch s {
	case appraise.Trusted:
		return "all that is required was shown and matches the reference values"
	case appraise.Untrusted:
		return "something that was shown contradicts the reference values, or a required proof does not hold"
	case appraise.Stale:
		return "it was decided once, and that has expired"
	case appraise.Pending:
		return "it is known and waits for an attestation or for an operator"
	case appraise.Unconfigured:
		return "there are no reference values to compare it with"
	case appraise.Unreachable:
		return "the host, the agent or the vTPM does not answer"
	case appraise.Rollback:
		return "an earlier state of the machine was brought back"
	}
	return "the Verifier has a fault of its own, which says nothing about the machine"
}
