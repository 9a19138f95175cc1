package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

func (a *app) unenrollCmd() *cobra.Command {
	cmd := a.verb("unenroll DOMAIN", "Make the Verifier forget a VM's vTPM, so that another is accepted", exactArgs(1, "one domain"),
		func(ctx context.Context, client *api.Client, args []string) error {
			m, err := a.find(ctx, client, args[0], false)
			if err != nil {
				return err
			}
			if err := client.DeleteVM(ctx, m.id); err != nil {
				return asked(err)
			}
			a.printf("VM '%s' forgotten\n", clean(m.name))
			return nil
		})
	cmd.Long = "For a VM whose vTPM was replaced, restored from a backup or moved on purpose (identity-changed, rollback): its identity, replay state and\n" +
		"results are forgotten; the next attestation enrols the vTPM that the VM has then. Assigned reference values stay."
	cmd.ValidArgsFunction = a.complete(false, a.domainNames)
	return cmd
}

func (a *app) rebaselineCmd() *cobra.Command {
	var yes bool
	var timeout time.Duration
	cmd := a.verb("rebaseline DOMAIN --yes", "Forget a VM's past and take what it is now for its beginning", exactArgs(1, "one domain"),
		func(ctx context.Context, client *api.Client, args []string) error {
			m, err := a.find(ctx, client, args[0], false)
			if err != nil {
				return err
			}
			return a.rebaseline(ctx, client, m, yes, timeout)
		})
	cmd.Long = "Unenrolls a VM and attests it at once: whatever vTPM it has now is enrolled, and counters, clock and log count from what they are\n" +
		"now. An earlier state that was brought back can no longer be told from a good one, so do it only where that was meant. Reference values stay\n" +
		"and are compared as always; the Verifier's audit log has who did it."
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without a question")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the evidence")
	cmd.ValidArgsFunction = a.complete(false, a.domainNames)
	return cmd
}

func (a *app) rebaseline(ctx context.Context, client *api.Client, m *machine, yes bool, timeout time.Duration) error {
	if !yes {
		ok, err := a.confirm(ctx, "The Verifier forgets what it knows of '"+clean(m.name)+"', which is "+string(m.result.State)+". Do it?", "--yes")
		if err != nil {
			return err
		}
		if !ok {
			return fail(exitUsage, "nothing was done")
		}
	}
	if err := client.DeleteVM(ctx, m.id); err != nil {
		return asked(err)
	}
	a.remark("VM '%s' forgotten, attesting it now", clean(m.name))
	r, err := client.Attest(ctx, api.AttestRequest{Host: m.host, VMs: []string{m.id}, Scheme: attest.SchemeSEPA, Timeout: timeout.Seconds()})
	if err != nil {
		return asked(err)
	}
	return a.showReports([]*api.Report{r})
}
