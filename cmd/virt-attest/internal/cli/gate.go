package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func (a *app) gateCmd() *cobra.Command {
	var maxAge, timeout time.Duration
	r := api.GateRequest{}
	ear := false
	cmd := a.verb("gate DOMAIN", "Say whether a VM may be used: TRUSTED by evidence that is fresh enough", exactArgs(1, "one domain"),
		func(ctx context.Context, client *api.Client, args []string) error {
			if maxAge < 0 || timeout < 0 || timeout > api.MaxTimeout {
				return fail(exitUsage, "--max-age must not be negative, --timeout be from 0 to %v", api.MaxTimeout)
			}
			r.VM, r.MaxAge, r.Timeout = a.resolveAll(args)[0], maxAge.Seconds(), timeout.Seconds()
			g, err := client.Gate(ctx, r)
			if err != nil {
				return asked(err)
			}
			return a.showGate(g, ear || r.Nonce != "")
		})
	cmd.Long = "For schedulers and scripts: exit status 0 exactly if the VM is TRUSTED by evidence that is not older than --max-age. Where what is\n" +
		"on record is not enough, the VM is attested now, within --timeout (0: it is not)."
	fl := cmd.Flags()
	fl.DurationVar(&maxAge, "max-age", 30*time.Second, "how old the evidence may be (0: attest in any case)")
	fl.DurationVar(&timeout, "timeout", 20*time.Second, "how long an attestation may take (0: none is made)")
	fl.StringVar(&r.Host, "on", "", "the `HOST`, where several have a VM of that name")
	fl.StringVar(&r.Scheme, "scheme", "", "sepa, hypa or sepa-exact (default: as the VM's policy says)")
	fl.StringVar(&r.Nonce, "nonce", "", "a relying party's own nonce, for the EAR: 8 to 88 characters")
	fl.BoolVar(&ear, "ear", false, "print the signed Attestation Result (EAR) instead of a word")
	cmd.ValidArgsFunction = a.complete(false, a.domainNames)
	_ = cmd.RegisterFlagCompletionFunc("scheme", words("sepa", "hypa", "sepa-exact"))
	a.flagNames(cmd, "on", hostNames)
	return cmd
}

// showGate prints the answer. Trusted alone opens the gate: a state in words that it does not go with closes it.
func (a *app) showGate(g *api.Gate, ear bool) error {
	done, err := a.structured(g)
	switch {
	case err != nil:
		return err
	case done:
	case ear:
		a.printf("%s\n", clean(g.EAR))
	case g.Trusted:
		a.printf("%s\n", a.colour(appraise.Trusted))
	default:
		a.printf("%s\n", a.colour(g.Result.State))
		a.reasons(g.Result, 3)
	}
	if g.Age >= 0 {
		a.step("evidence is %.0f seconds old, attested now: %s", g.Age, yesNo(g.Attested))
	}
	if g.Trusted {
		return nil
	}
	if err := verdict([]appraise.State{g.Result.State}); err != nil {
		return err
	}
	a.remark("virt-attest: TRUSTED by evidence that is too old for the gate")
	return &exitError{exitWrongState, errVerdict}
}
