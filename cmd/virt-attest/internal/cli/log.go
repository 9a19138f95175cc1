package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

// logFlags say which log, and how much of it.
type logFlags struct {
	ima, boot, bad, raw, follow bool
	text                        string
}

func (a *app) logCmd() *cobra.Command {
	var f logFlags
	cmd := a.machineVerb("log DOMAIN --ima | --boot", "Show a machine's IMA log or boot event log as the Verifier holds it",
		func(ctx context.Context, client *api.Client, m *machine) error {
			switch {
			case f.raw:
				return a.rawLog(ctx, client, m, f)
			case f.boot:
				return a.bootLog(ctx, client, m, f)
			case f.follow:
				return a.followIMA(ctx, client, m, f)
			}
			return a.imaLog(ctx, client, m, f)
		})
	fl := cmd.Flags()
	fl.BoolVar(&f.ima, "ima", false, "the IMA measurement list")
	fl.BoolVar(&f.boot, "boot", false, "the TCG event log of the boot")
	fl.BoolVar(&f.bad, "bad", false, "only entries that count against the machine")
	fl.StringVar(&f.text, "match", "", "only entries with this `TEXT` in their path")
	fl.BoolVar(&f.raw, "raw", false, "the binary log, for other tools")
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on with new entries as attestations bring them (--ima)")
	cmd.MarkFlagsMutuallyExclusive("boot", "follow")
	cmd.MarkFlagsMutuallyExclusive("raw", "follow")
	before(cmd, func() error {
		if f.ima == f.boot {
			return fail(exitUsage, "say which log: --ima or --boot")
		}
		return nil
	})
	return cmd
}

func (a *app) rawLog(ctx context.Context, client *api.Client, m *machine, f logFlags) error {
	get := client.MachineIMA
	if f.boot {
		get = client.MachineBootLog
	}
	b, err := get(ctx, m.id)
	if err != nil {
		return asked(err)
	}
	_, err = a.out.Write(b)
	return err
}

// entriesOf is a machine's IMA log as a list.
func entriesOf(client *api.Client, m *machine, f logFlags) fetch[api.IMAEntry] {
	return func(ctx context.Context, p api.Page) (*api.List[api.IMAEntry], error) {
		return client.IMAEntries(ctx, m.id, api.IMAFilter{Bad: f.bad, Text: f.text, Page: p})
	}
}

var imaColumns = []column[api.IMAEntry]{
	{"Entry", false, func(e api.IMAEntry) string { return strconv.FormatUint(e.Index, 10) }},
	{"Template", true, func(e api.IMAEntry) string { return e.Template }},
	{"Digest", false, func(e api.IMAEntry) string { return e.Digest }},
	{"Path", false, func(e api.IMAEntry) string { return e.Path }},
	{"Finding", false, func(e api.IMAEntry) string { return e.Verdict }},
	{"Text", true, func(e api.IMAEntry) string { return dash(e.Text) }},
}

func entryPath(e api.IMAEntry) string { return e.Path }

func (a *app) imaLog(ctx context.Context, client *api.Client, m *machine, f logFlags) error {
	entries, err := pages(ctx, a, "IMA entries", entriesOf(client, m, f))
	if err != nil {
		return err
	}
	return showList(a, entries, entryPath, imaColumns)
}

// followIMA prints the log so far, and then what every new verdict of the machine adds to it.
func (a *app) followIMA(ctx context.Context, client *api.Client, m *machine, f logFlags) error {
	next := uint64(0)
	more := func() error {
		return eachPage(ctx, a, "IMA entries", entriesOf(client, m, f), func(items []api.IMAEntry) error {
			for _, e := range items {
				if e.Index >= next {
					next = e.Index + 1
					if err := a.logLine(e); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	after, err := newestEvent(ctx, client)
	if err != nil {
		return err
	}
	if err := more(); err != nil {
		return err
	}
	return asked(client.Follow(ctx, api.EventFilter{After: after, Machine: m.id, Kinds: []string{api.EventVerdict}},
		func(api.Event) error { return more() }))
}

// logLine prints an entry as it comes: a line, or a line of JSON.
func (a *app) logLine(e api.IMAEntry) error {
	switch a.output {
	case "json", "yaml":
		return a.printLine(e)
	case "name":
		a.printf("%s\n", clean(e.Path))
	default:
		a.printf("%8d  %-12s  %s  %s\n", e.Index, clean(e.Verdict), clean(e.Digest), clean(e.Path))
	}
	return nil
}

func (a *app) bootLog(ctx context.Context, client *api.Client, m *machine, f logFlags) error {
	events, err := client.BootEvents(ctx, m.id)
	if err != nil {
		return asked(err)
	}
	if f.bad {
		bad := []api.BootEvent{}
		for _, e := range events {
			if e.Finding != "" {
				bad = append(bad, e)
			}
		}
		events = bad
	}
	return showList(a, events, func(e api.BootEvent) string { return e.Type }, []column[api.BootEvent]{
		{"Event", false, func(e api.BootEvent) string { return strconv.Itoa(e.Index) }},
		{"PCR", false, func(e api.BootEvent) string { return strconv.Itoa(int(e.PCR)) }},
		{"Type", false, func(e api.BootEvent) string { return e.Type }},
		{"Digest", true, func(e api.BootEvent) string { return e.Digest }},
		{"Data matches", true, func(e api.BootEvent) string { return yesNo(e.Matched) }},
		{"Data", false, func(e api.BootEvent) string { return dash(e.Data) }},
		{"Finding", false, func(e api.BootEvent) string { return dash(e.Finding) }},
	})
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
