package cli

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

// eventFlags are those of virsh event, with the kinds of ours.
type eventFlags struct {
	loop    bool
	timeout time.Duration
	kinds   []string
	domain  string
	host    bool
	last    int
}

func eventKinds() []string {
	return []string{api.EventVerdict, api.EventHost, api.EventVM, api.EventDocument, api.EventSettings, api.EventAlert, api.EventReplica, api.EventReconcile, api.EventAction}
}

func (a *app) eventCmd() *cobra.Command {
	var f eventFlags
	cmd := a.verb("event", "Wait for events and print them", noArgs,
		func(ctx context.Context, client *api.Client, _ []string) error { return a.event(ctx, client, f) })
	cmd.Long = "Prints the next event, as virsh event does, or with --loop all that come. With --last those that were, and no other."
	fl := cmd.Flags()
	fl.BoolVar(&f.loop, "loop", false, "go on until interrupted or --timeout")
	fl.DurationVar(&f.timeout, "timeout", 0, "stop after this time")
	fl.StringSliceVar(&f.kinds, "kind", nil, "only events of this `KIND` (may be repeated): "+strings.Join(eventKinds(), ", "))
	fl.StringVar(&f.domain, "domain", "", "only events of this `DOMAIN`")
	fl.BoolVar(&f.host, "host", false, "the domain is a host, by name or ID")
	fl.IntVar(&f.last, "last", 0, "print this many past events, oldest first, and stop")
	_ = cmd.RegisterFlagCompletionFunc("kind", words(eventKinds()...))
	a.flagNames(cmd, "domain", a.domainNames)
	return cmd
}

func (a *app) event(ctx context.Context, client *api.Client, f eventFlags) error {
	filter := api.EventFilter{Kinds: f.kinds}
	for _, k := range f.kinds {
		if !slices.Contains(eventKinds(), k) {
			return fail(exitUsage, "unknown kind of event %q (%s)", clean(k), strings.Join(eventKinds(), ", "))
		}
	}
	if f.domain != "" {
		m, err := a.find(ctx, client, f.domain, f.host)
		if err != nil {
			return err
		}
		filter.Machine = m.id
	}
	if f.last != 0 {
		return a.pastEvents(ctx, client, filter, f.last)
	}
	var err error
	if filter.After, err = newestEvent(ctx, client); err != nil {
		return err
	}
	return a.followEvents(ctx, client, filter, f)
}

// errEnough ends Follow when nothing more is wanted.
var errEnough = errors.New("enough")

func (a *app) followEvents(ctx context.Context, client *api.Client, filter api.EventFilter, f eventFlags) error {
	until := ctx
	if f.timeout > 0 {
		var cancel context.CancelFunc
		until, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	received := 0
	err := client.Follow(until, filter, func(e api.Event) error {
		received++
		if err := a.printEvent(e); err != nil {
			return err
		}
		if !f.loop {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		err = nil
	case ctx.Err() == nil && until.Err() != nil:
		a.remark("event loop timed out")
		err = nil
	}
	a.remark("events received: %d", received)
	return asked(err)
}

func (a *app) pastEvents(ctx context.Context, client *api.Client, filter api.EventFilter, last int) error {
	if last < 1 || last > api.MaxEvents {
		return fail(exitUsage, "--last %d: 1 to %d events", last, api.MaxEvents)
	}
	filter.Newest, filter.Limit = true, last
	events, err := client.Events(ctx, filter)
	if err != nil {
		return asked(err)
	}
	slices.Reverse(events)
	if a.output == "wide" {
		return showList(a, events, func(e api.Event) string { return e.Name }, eventColumns)
	}
	for _, e := range events {
		if err := a.printEvent(e); err != nil {
			return err
		}
	}
	return nil
}

var eventColumns = []column[api.Event]{
	{"ID", false, func(e api.Event) string { return number(e.ID) }},
	{"Time", false, func(e api.Event) string { return e.Time.Local().Format("2006-01-02 15:04:05") }},
	{"Kind", false, func(e api.Event) string { return e.Kind }},
	{"Name", false, func(e api.Event) string { return dash(e.Name) }},
	{"Event", false, func(e api.Event) string { return e.Text }},
}

// printEvent prints an event as it comes: a line as virsh does, or a line of JSON.
func (a *app) printEvent(e api.Event) error {
	switch a.output {
	case "json", "yaml":
		return a.printLine(e)
	case "name":
		a.printf("%s\n", clean(e.Name))
		return nil
	}
	a.printf("%s: event '%s'", e.Time.Local().Format("2006-01-02 15:04:05.000-0700"), clean(e.Kind))
	if e.Name != "" {
		a.printf(" for %s '%s'", of(e), clean(e.Name))
	}
	if e.State != "" {
		a.printf(": %s", a.colour(e.State))
		if e.Before != "" {
			a.printf(" (was %s)", clean(string(e.Before)))
		}
	}
	a.printf(": %s\n", clean(e.Text))
	return nil
}

// of says what an event's name is of.
func of(e api.Event) string {
	switch {
	case e.Kind == api.EventDocument || e.Kind == api.EventReconcile && e.Machine == "":
		return "document"
	case e.Kind == api.EventReplica:
		return "replica"
	case e.Machine != "" && e.Machine == e.Host || e.Kind == api.EventHost:
		return "host"
	}
	return "domain"
}

// printLine prints one item of a stream: a line of JSON, or a document of YAML.
func (a *app) printLine(v any) error {
	if a.output == "yaml" {
		a.printf("---\n")
		return a.printYAML(v)
	}
	return json.NewEncoder(a.out).Encode(v)
}

// newestEvent is the ID of the last event so far; what follows comes after it.
func newestEvent(ctx context.Context, client *api.Client) (int64, error) {
	l, err := client.Events(ctx, api.EventFilter{Newest: true, Limit: 1})
	if err != nil || len(l) == 0 {
		return 0, asked(err)
	}
	return l[0].ID, nil
}
