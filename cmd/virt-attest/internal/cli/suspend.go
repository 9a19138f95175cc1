package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func (a *app) suspendCmd() *cobra.Command {
	var r api.SuspendRequest
	var span time.Duration
	cmd := a.machineVerb("suspend DOMAIN", "Take a machine out of the schedule: it is not attested until it is resumed",
		func(ctx context.Context, client *api.Client, m *machine) error {
			r.Seconds = span.Seconds()
			v, err := client.Suspend(ctx, m.id, r)
			if err != nil {
				return asked(err)
			}
			if done, err := a.structured(v); done {
				return err
			}
			until := "until it is resumed"
			if !v.Until.IsZero() {
				until = "until " + v.Until.Local().Format("2006-01-02 15:04:05")
			}
			a.printf("Attestation of '%s' suspended %s\n", clean(m.name), until)
			if e := m.result.Expires; m.result.State == "TRUSTED" && time.Now().Before(e) {
				a.remark("Its verdict counts until %s and is STALE then", e.Local().Format("2006-01-02 15:04:05"))
			}
			return nil
		})
	cmd.Long = "For work on a machine that would make it UNTRUSTED or UNREACHABLE for a time. Its last verdict counts as long as it would have, and is STALE after\n" +
		"that. Whoever asks (attest, gate) still gets an answer. A host that is suspended leaves its VMs without one too."
	cmd.Flags().DurationVar(&span, "for", 0, "for this long, such as 2h, instead of until it is resumed")
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why, in one line")
	before(cmd, func() error {
		if span < 0 {
			return fail(exitUsage, "--for %v: a time span from now on", span)
		}
		return nil
	})
	return cmd
}

func (a *app) resumeCmd() *cobra.Command {
	return a.machineVerb("resume DOMAIN", "Put a suspended machine back into the schedule",
		func(ctx context.Context, client *api.Client, m *machine) error {
			if err := client.Resume(ctx, m.id); err != nil {
				return asked(err)
			}
			a.printf("Attestation of '%s' resumed\n", clean(m.name))
			a.remark("It is attested when its schedule says so; at once: %s", attestAgain(m))
			return nil
		})
}
