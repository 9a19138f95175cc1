package cli

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// reportFlags select reports of a machine and their form.
type reportFlags struct {
	last   int
	format string
	save   string
	nonce  string
	plot   string
}

func (a *app) reportCmd() *cobra.Command {
	var f reportFlags
	cmd := a.machineVerb("report DOMAIN", "Show the newest reports about a machine",
		func(ctx context.Context, client *api.Client, m *machine) error { return a.report(ctx, client, m, f) })
	cmd.Flags().IntVar(&f.last, "last", 1, "how many, newest first")
	cmd.Flags().StringVar(&f.format, "format", "text", "text, json, html (one file, to be read or printed), or jwt: a signed Attestation Result (EAR) of a VM")
	cmd.Flags().StringVar(&f.save, "save", "", "write to `FILE` instead of standard output")
	cmd.Flags().StringVar(&f.nonce, "nonce", "", "a relying party's own nonce, for jwt: 8 to 88 characters")
	cmd.Flags().StringVar(&f.plot, "plot", "", "draw the machine's states over time into `FILE`, as SVG, instead")
	_ = cmd.RegisterFlagCompletionFunc("format", words("text", "json", "jwt", "html"))
	before(cmd, f.check)
	return cmd
}

func (f *reportFlags) check() error {
	switch {
	case f.last < 1 || f.last > api.MaxPageSize:
		return fail(exitUsage, "--last %d: 1 to %d reports", f.last, api.MaxPageSize)
	case !slices.Contains([]string{"text", "json", "jwt", "html"}, f.format):
		return fail(exitUsage, "unknown format %q (text, json, jwt, html)", clean(f.format))
	case f.plot != "" && (f.save != "" || f.format != "text"):
		return fail(exitUsage, "--plot is a form of its own")
	case f.format == "jwt" && f.last != 1:
		return fail(exitUsage, "--format jwt is for the newest result")
	}
	return nil
}

func (a *app) report(ctx context.Context, client *api.Client, m *machine, f reportFlags) error {
	if f.plot != "" {
		return a.plotStates(ctx, client, m, f.plot)
	}
	out := a.out
	var kept strings.Builder
	if f.save != "" {
		a.out = &kept
	}
	err := a.reportAs(ctx, client, m, f)
	a.out = out
	if f.save == "" || exitCode(err) > exitNotTrusted && exitCode(err) != exitWrongState {
		return err
	}
	if e := writeFile(f.save, []byte(kept.String())); e != nil {
		return e
	}
	a.remark("Report of '%s' written to %s", clean(m.name), f.save)
	return err
}

func (a *app) reportAs(ctx context.Context, client *api.Client, m *machine, f reportFlags) error {
	switch f.format {
	case "jwt":
		return a.ear(ctx, client, m, f)
	case "json":
		a.output = "json"
	}
	list, err := client.Reports(ctx, m.id, api.Page{Limit: f.last})
	if err != nil {
		return asked(err)
	}
	if len(list.Items) == 0 {
		return fail(exitWrongState, "there is no report about '%s'; run: %s", clean(m.name), attestAgain(m))
	}
	var reports []*api.Report
	for _, info := range list.Items {
		r, err := client.Report(ctx, info.ID)
		if err != nil {
			return asked(err)
		}
		reports = append(reports, r)
	}
	if f.format == "html" {
		b, err := htmlReport(m, reports, list.Items)
		if err != nil {
			return err
		}
		if _, err := a.out.Write(b); err != nil {
			return err
		}
	} else if done, err := a.structured(reports); err != nil {
		return err
	} else if !done {
		for i, r := range reports {
			a.printReport(r, list.Items[i])
		}
	}
	return verdict([]appraise.State{list.Items[0].State})
}

// printReport prints a report for people: what was asked when, verdicts, reasons, and the protocol's steps.
func (a *app) printReport(r *api.Report, info api.ReportInfo) {
	kept := "no longer kept"
	if info.Evidence {
		kept = "kept"
	}
	a.printf("Report %s: %v, %s, evidence %s\n", clean(r.ID), r.Scheme, info.Time.Local().Format("2006-01-02 15:04:05"), kept)
	a.printReports([]*api.Report{r})
	for _, s := range r.Steps {
		a.printf("   %8.1f ms  %s\n", s.Seconds*1000, clean(s.Text))
	}
	a.printf("\n")
}

func (a *app) ear(ctx context.Context, client *api.Client, m *machine, f reportFlags) error {
	if m.isHost {
		return fail(exitUsage, "--format jwt is for VMs")
	}
	token, err := client.EAR(ctx, m.id, f.nonce)
	if err != nil {
		return asked(err)
	}
	_, err = io.WriteString(a.out, clean(token)+"\n")
	if err != nil {
		return err
	}
	return verdict([]appraise.State{m.result.State})
}

func (a *app) historyCmd() *cobra.Command {
	last := 0
	cmd := a.machineVerb("history DOMAIN", "Show how a machine's state changed and what was done to it, newest first",
		func(ctx context.Context, client *api.Client, m *machine) error {
			events, err := client.Events(ctx, api.EventFilter{Kinds: []string{api.EventVerdict, api.EventAction}, Machine: m.id, Newest: true, Limit: last})
			if err != nil {
				return asked(err)
			}
			return showList(a, events, func(e api.Event) string { return e.Report }, historyColumns)
		})
	cmd.Flags().IntVar(&last, "last", 20, "how many changes")
	before(cmd, func() error {
		if last < 1 || last > api.MaxEvents {
			return fail(exitUsage, "--last %d: 1 to %d changes", last, api.MaxEvents)
		}
		return nil
	})
	return cmd
}

var historyColumns = []column[api.Event]{
	{"Time", false, func(e api.Event) string { return e.Time.Local().Format("2006-01-02 15:04:05") }},
	{"State", false, func(e api.Event) string { return string(e.State) }},
	{"Before", false, func(e api.Event) string { return dash(string(e.Before)) }},
	{"Host", true, func(e api.Event) string { return dash(e.Host) }},
	{"Report", true, func(e api.Event) string { return dash(e.Report) }},
	{"Reason", false, func(e api.Event) string {
		if e.Kind == api.EventAction {
			return e.Text
		}
		if len(e.Reasons) == 0 {
			return "-"
		}
		return string(e.Reasons[0].Code) + ": " + e.Reasons[0].Text
	}},
}

// dash stands for what is not there.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// decodeResult reads a job's result.
func decodeResult(j *api.Job, v any) error {
	if err := json.Unmarshal(j.Result, v); err != nil {
		return fail(exitBug, "the Verifier's job %s has an unreadable result: %v", clean(j.ID), err)
	}
	return nil
}
