package cli

import (
	"context"
	"encoding/csv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func (a *app) exportCmd() *cobra.Command {
	return noun("export", "Everything that the Verifier knows, for other tools",
		exporter(a, "vms", "Every VM with its verdict", vmFields, func(ctx context.Context, client *api.Client, f func([]api.VM) error) error {
			return eachPage(ctx, a, "VMs", vmsOf(client, api.MachineFilter{}), f)
		}),
		exporter(a, "hosts", "Every host with its verdict", hostFields, func(ctx context.Context, client *api.Client, f func([]api.Host) error) error {
			return eachPage(ctx, a, "hosts", hostsOf(client, api.MachineFilter{}), f)
		}),
		exporter(a, "events", "Every event that is kept, oldest first", eventFields, allEvents))
}

// exporter makes a command that writes items as JSON lines, or as CSV, page by page.
func exporter[T any](a *app, what, short string, fields []column[T], each func(context.Context, *api.Client, func([]T) error) error) *cobra.Command {
	var asCSV bool
	cmd := a.verb(what, short, noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		if asCSV && a.output != "table" {
			return fail(exitUsage, "--csv and -o %s are two forms", a.output)
		}
		if !asCSV {
			a.output = "json"
			return each(ctx, client, func(items []T) error { return printLines(a, items) })
		}
		w := csv.NewWriter(a.out)
		if err := w.Write(pick(fields, func(c column[T]) string { return c.head })); err != nil {
			return err
		}
		err := each(ctx, client, func(items []T) error {
			for _, it := range items {
				if err := w.Write(pick(fields, func(c column[T]) string { return cell(c.cell(it)) })); err != nil {
					return err
				}
			}
			w.Flush()
			return w.Error()
		})
		if err != nil {
			return err
		}
		w.Flush()
		return w.Error()
	})
	cmd.Flags().BoolVar(&asCSV, "csv", false, "comma separated values (RFC 4180) instead of lines of JSON")
	return cmd
}

func printLines[T any](a *app, items []T) error {
	for _, it := range items {
		if err := a.printLine(it); err != nil {
			return err
		}
	}
	return nil
}

// cell makes text that a machine sent harmless in a spreadsheet, which would compute what begins like a formula.
func cell(s string) string {
	s = clean(s)
	if s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}

func allEvents(ctx context.Context, client *api.Client, f func([]api.Event) error) error {
	after := int64(0)
	for range maxPages {
		l, err := client.Events(ctx, api.EventFilter{After: after, Limit: api.MaxEvents})
		if err != nil {
			return asked(err)
		}
		if len(l) == 0 {
			return nil
		}
		if err := f(l); err != nil {
			return err
		}
		last := l[len(l)-1].ID
		if last <= after {
			break
		}
		after = last
	}
	return fail(exitBug, "the Verifier's list of events has no end")
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func codes(l []appraise.Reason) string {
	return strings.Join(pick(l, func(r appraise.Reason) string { return string(r.Code) }), " ")
}

var vmFields = []column[api.VM]{
	{"uuid", false, func(v api.VM) string { return v.UUID.String() }}, {"name", false, func(v api.VM) string { return v.Name }},
	{"host", false, func(v api.VM) string { return v.Host }}, {"state", false, func(v api.VM) string { return string(v.Result.State) }},
	{"reasons", false, func(v api.VM) string { return codes(v.Result.Reasons) }}, {"scheme", false, func(v api.VM) string { return schemeText(v.Result) }},
	{"attested", false, func(v api.VM) string { return stamp(v.Result.Time) }}, {"expires", false, func(v api.VM) string { return stamp(v.Result.Expires) }},
	{"report", false, func(v api.VM) string { return v.Result.Report }}, {"reference_values", false, func(v api.VM) string { return v.Result.RIM }},
	{"kernel", false, func(v api.VM) string { return v.Result.Kernel }},
}

var hostFields = []column[api.Host]{
	{"id", false, func(h api.Host) string { return h.ID }}, {"name", false, func(h api.Host) string { return h.Name }},
	{"state", false, func(h api.Host) string { return string(h.Result.State) }}, {"reasons", false, func(h api.Host) string { return codes(h.Result.Reasons) }},
	{"approved", false, func(h api.Host) string { return yesNo(h.Approved) }}, {"online", false, func(h api.Host) string { return yesNo(h.Online) }},
	{"attested", false, func(h api.Host) string { return stamp(h.Result.Time) }}, {"last_seen", false, func(h api.Host) string { return stamp(h.LastSeen) }},
	{"ek_sha256", false, func(h api.Host) string { return h.EKSHA256 }},
}

var eventFields = []column[api.Event]{
	{"id", false, func(e api.Event) string { return number(e.ID) }}, {"time", false, func(e api.Event) string { return stamp(e.Time) }},
	{"kind", false, func(e api.Event) string { return e.Kind }}, {"machine", false, func(e api.Event) string { return e.Machine }},
	{"name", false, func(e api.Event) string { return e.Name }}, {"host", false, func(e api.Event) string { return e.Host }},
	{"state", false, func(e api.Event) string { return string(e.State) }}, {"before", false, func(e api.Event) string { return string(e.Before) }},
	{"reasons", false, func(e api.Event) string { return codes(e.Reasons) }}, {"text", false, func(e api.Event) string { return e.Text }},
}

func schemeText(r appraise.Result) string {
	if r.Scheme == 0 {
		return ""
	}
	return r.Scheme.String()
}
