package cli

import (
	"bufio"
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

// auditFlags say what is to be done with the audit log.
type auditFlags struct {
	verify bool
	export string
	last   int

	keys        string   // file with the Verifier's public keys
	checkpoints []string // files
}

func (a *app) auditCmd() *cobra.Command {
	var f auditFlags
	cmd := a.verb("audit [--verify [FILE]]", "Show the Verifier's audit log, check its chain, or keep a copy", rangeArgs(0, 1, "at most one file"),
		func(ctx context.Context, client *api.Client, _ []string) error {
			switch {
			case f.verify:
				return a.auditVerify(ctx, client)
			case f.export != "":
				return a.auditExport(ctx, client, f.export)
			}
			return a.auditList(ctx, client, f.last)
		})
	online := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return a.auditFile(args[0], f)
		}
		return online(cmd, args)
	}
	cmd.Long = "Shows the newest entries. --verify has the Verifier check the chain, or, with a file that --export wrote, checks it here, without a Verifier."
	cmd.Flags().BoolVar(&f.verify, "verify", false, "check that no entry was changed, removed or put in")
	cmd.Flags().StringVar(&f.export, "export", "", "write all entries to `FILE` as JSON lines, oldest first (-: standard output)")
	cmd.Flags().IntVar(&f.last, "last", 50, "how many entries to show")
	cmd.Flags().StringVar(&f.keys, "keys", "", "for a file: the Verifier's public keys, as virt-attest keys printed them, to check its checkpoints with")
	cmd.Flags().StringArrayVar(&f.checkpoints, "checkpoint", nil, "for a file: a `FILE` with checkpoints that were kept elsewhere (may be repeated)")
	cmd.MarkFlagsMutuallyExclusive("verify", "export")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if file := len(args) == 1; file != f.verify && file || !file && (f.keys != "" || len(f.checkpoints) > 0) {
			return fail(exitUsage, "a file is for --verify, and --keys and --checkpoint are for a file")
		}
		return nil
	}
	cmd.ValidArgsFunction = files
	return cmd
}

var auditColumns = []column[api.AuditEntry]{
	{"Seq", false, func(e api.AuditEntry) string { return number(e.Seq) }},
	{"Time", false, func(e api.AuditEntry) string { return e.Time.Local().Format("2006-01-02 15:04:05") }},
	{"Who", false, func(e api.AuditEntry) string { return e.Actor }},
	{"What", false, func(e api.AuditEntry) string { return e.Action }},
	{"To", false, func(e api.AuditEntry) string { return dash(e.Object) }},
	{"Details", true, func(e api.AuditEntry) string { return dash(string(e.Detail)) }},
	{"Hash", true, func(e api.AuditEntry) string { return e.Hash }},
}

func (a *app) auditList(ctx context.Context, client *api.Client, last int) error {
	if last < 1 {
		return fail(exitUsage, "--last %d: at least 1 entry", last)
	}
	var out []api.AuditEntry
	for before := int64(0); len(out) < last; {
		l, err := client.Audit(ctx, before, min(last-len(out), api.MaxEvents))
		if err != nil {
			return asked(err)
		}
		if len(l) == 0 || before != 0 && l[0].Seq >= before {
			break
		}
		out, before = append(out, l...), l[len(l)-1].Seq
	}
	return showList(a, out[:min(len(out), last)], func(e api.AuditEntry) string { return number(e.Seq) }, auditColumns)
}

func (a *app) auditVerify(ctx context.Context, client *api.Client) error {
	c, err := client.CheckAudit(ctx)
	if err != nil {
		return asked(err)
	}
	return a.showAuditCheck(c)
}

func (a *app) showAuditCheck(c *api.AuditCheck) error {
	done, err := a.structured(c)
	switch {
	case err != nil:
		return err
	case done:
	case c.OK:
		a.printf("The chain holds: %d entries, head %s\n", c.Entries, clean(c.Head))
		if c.Checkpoint != "" {
			a.printf("Checkpoint, to be kept elsewhere:\n%s\n", clean(c.Checkpoint))
		}
	default:
		a.printf("The chain does not hold: %s\n", clean(c.Problem))
	}
	if !c.OK {
		return &exitError{exitNotTrusted, errVerdict}
	}
	return nil
}

func (a *app) auditExport(ctx context.Context, client *api.Client, file string) error {
	if file == "-" {
		return asked(client.ExportAudit(ctx, a.out))
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // 0600
	if err != nil {
		return fail(exitUsage, "%v", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // where it was renamed, nothing is left of that name
	w := bufio.NewWriter(tmp)
	err = client.ExportAudit(ctx, w)
	if e := w.Flush(); err == nil && e != nil {
		return fail(exitUsage, "%v", e)
	}
	if e := tmp.Close(); err == nil && e != nil {
		return fail(exitUsage, "%v", e)
	}
	if err != nil {
		return asked(err)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return fail(exitUsage, "%v", err)
	}
	a.printf("Audit log written to %s\n", file)
	return nil
}
