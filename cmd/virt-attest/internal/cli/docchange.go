package cli

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func (d *docs) diffCmd() *cobra.Command {
	cmd := d.verb("diff A B", "Compare two, each a name, a name@version or a file", exactArgs(2, "two names or files"),
		func(ctx context.Context, client *api.Client, args []string) error {
			var sides [2][]byte
			for i, arg := range args {
				var err error
				if sides[i], err = d.load(ctx, client, arg); err != nil {
					return err
				}
			}
			list, lines, err := d.diff(sides[0], sides[1])
			if err != nil {
				return fail(exitConfig, "%v", err)
			}
			if done, err := d.structured(list); done {
				return err
			}
			for _, l := range lines {
				d.printf("%s\n", clean(l))
			}
			return nil
		})
	list := docNames(d.kind)
	cmd.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		out, _ := d.complete(false, list, list)(c, args, word)
		return out, cobra.ShellCompDirectiveDefault
	}
	return cmd
}

func (d *docs) activateCmd() *cobra.Command {
	var async bool
	cmd := d.docVerb("activate NAME@VERSION", "Use a version from now on", func(ctx context.Context, client *api.Client, name string, version int) error {
		if version == 0 {
			return fail(exitUsage, "say which version: %s@NUMBER or %s@latest", name, name)
		}
		return d.activate(ctx, client, name, version, async)
	})
	cmd.Long = "Machines that use it are appraised again from the evidence on record; until that is done they are PENDING."
	cmd.Flags().BoolVar(&async, "async", false, "do not wait until the machines that use it are appraised again")
	return cmd
}

func (d *docs) activate(ctx context.Context, client *api.Client, name string, version int, async bool) error {
	j, err := client.Activate(ctx, d.kind, name, version)
	if err != nil {
		return asked(err)
	}
	if !async {
		if j, err = d.await(ctx, client, j, "machines appraised again"); err != nil {
			return err
		}
	}
	if done, err := d.structured(j); done {
		return err
	}
	d.printf("%s '%s': version %d is active\n", d.title, clean(name), version)
	return nil
}

func (d *docs) rollbackCmd() *cobra.Command {
	var async bool
	cmd := d.docVerb("rollback NAME", "Use the version again that was active before", func(ctx context.Context, client *api.Client, name string, version int) error {
		if version == 0 {
			var err error
			if version, err = d.earlier(ctx, client, name); err != nil {
				return err
			}
		}
		return d.activate(ctx, client, name, version, async)
	})
	cmd.Flags().BoolVar(&async, "async", false, "do not wait until the machines that use it are appraised again")
	return cmd
}

// earlier is the version that was active before the one that is.
func (d *docs) earlier(ctx context.Context, client *api.Client, name string) (int, error) {
	list, err := client.DocVersions(ctx, d.kind, name)
	if err != nil {
		return 0, asked(err)
	}
	list = slices.DeleteFunc(list, func(v api.DocVersion) bool { return v.Active || v.Activated.IsZero() })
	if len(list) == 0 {
		return 0, fail(exitWrongState, "'%s' has no version that was active before", clean(name))
	}
	return slices.MaxFunc(list, func(x, y api.DocVersion) int { return x.Activated.Compare(y.Activated) }).Version, nil
}

func (d *docs) impactCmd() *cobra.Command {
	cmd := d.docVerb("impact NAME[@VERSION]", "Show what a version would do to verdicts, before it is activated",
		func(ctx context.Context, client *api.Client, name string, version int) error {
			if version == 0 {
				var err error
				if version, err = d.latest(ctx, client, name); err != nil {
					return err
				}
			}
			i, err := d.impact(ctx, client, name, version)
			if err != nil {
				return err
			}
			return d.showImpact(i)
		})
	cmd.Long = "Appraises the newest evidence of every machine that uses it with that version; without a version, with the newest one.\n" +
		"Exit status: 1 where a machine that is TRUSTED would no longer be, 0 elsewhere."
	return cmd
}

func (d *docs) impact(ctx context.Context, client *api.Client, name string, version int) (*api.Impact, error) {
	j, err := client.Impact(ctx, d.kind, name, version)
	if err != nil {
		return nil, asked(err)
	}
	if j, err = d.await(ctx, client, j, "machines judged"); err != nil {
		return nil, err
	}
	var i api.Impact
	return &i, decodeResult(j, &i)
}

func (d *docs) showImpact(i *api.Impact) error {
	if done, err := d.structured(i); err != nil {
		return err
	} else if !done {
		d.printImpact(i)
	}
	for _, c := range i.Changes {
		if c.Now == appraise.Trusted && c.Then != appraise.Trusted {
			return &exitError{exitNotTrusted, errVerdict}
		}
	}
	return nil
}

func (d *docs) printImpact(i *api.Impact) {
	d.printf("Version %d of %s: %s it, %d with evidence on record, %d would change\n", i.Version, clean(i.Name),
		plural(i.Machines, "machine uses", "machines use"), i.Judged, len(i.Changes)+i.More)
	if len(i.Changes) == 0 {
		return
	}
	rows := make([][]string, 0, len(i.Changes))
	for _, c := range i.Changes {
		why := "-"
		if len(c.Reasons) > 0 {
			why = string(c.Reasons[0].Code) + ": " + c.Reasons[0].Text
		}
		rows = append(rows, []string{c.Name, string(c.Now), string(c.Then), why})
	}
	d.table([]string{"Name", "Now", "Then", "Reason then"}, rows)
	if i.More > 0 {
		d.printf("… and %d more\n", i.More)
	}
}

// await follows deferred work to its end. Ending the command does not end the work.
func (a *app) await(ctx context.Context, client *api.Client, j *api.Job, what string) (*api.Job, error) {
	bar := a.begin(what, j.Total)
	defer bar.end()
	for pause := jobPoll; ; pause = min(pause*5/4, jobPollMost) {
		bar.set(j.Done, j.Total)
		switch j.State {
		case "done":
			return j, nil
		case "failed":
			return nil, fail(exitBug, "the Verifier could not finish: %s (job %s)", clean(dash(j.Error)), clean(j.ID))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		next, err := client.Job(ctx, j.ID)
		if err != nil {
			return nil, asked(err)
		}
		j = next
	}
}

func versioned(name string, version int) string { return name + "@" + strconv.Itoa(version) }
