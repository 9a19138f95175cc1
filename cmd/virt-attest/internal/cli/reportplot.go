package cli

import (
	"context"
	"fmt"
	"html"
	"slices"
	"strings"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Sizes of a plot, in pixels.
const (
	plotWide = 900
	plotTall = 60
	plotTop  = 30
)

var plotColours = map[appraise.State]string{
	appraise.Trusted: "#1a7f37", appraise.Untrusted: "#a40e26", appraise.Rollback: "#82071e", appraise.Error: "#6639ba",
	appraise.Stale: "#bf8700", appraise.Pending: "#d4a72c", appraise.Unconfigured: "#9a6700", appraise.Unreachable: "#57606a",
}

// plotStates draws a machine's states over time, of its newest changes.
func (a *app) plotStates(ctx context.Context, client *api.Client, m *machine, file string) error {
	events, err := client.Events(ctx, api.EventFilter{Kinds: []string{api.EventVerdict}, Machine: m.id, Newest: true, Limit: api.MaxEvents})
	if err != nil {
		return asked(err)
	}
	if len(events) == 0 {
		return fail(exitWrongState, "there is no change of state of '%s' on record", clean(m.name))
	}
	slices.Reverse(events)
	if err := writeFileAs(file, []byte(statePlot(m.name, events, time.Now())), 0o644); err != nil {
		return err
	}
	a.remark("States of '%s' drawn into %s", clean(m.name), file)
	return nil
}

// statePlot is a strip of states from the first of events, oldest first, to now, as SVG that loads and runs nothing.
func statePlot(name string, events []api.Event, now time.Time) string {
	from := events[0].Time
	span := max(now.Sub(from), time.Second)
	at := func(t time.Time) float64 { return min(max(float64(t.Sub(from))/float64(span), 0), 1) * plotWide }
	var b strings.Builder
	title := html.EscapeString(harmless(name))
	_, _ = fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="states of %s over time" font-family="sans-serif" font-size="12">`+"\n",
		plotWide, plotTop+plotTall+25, title)
	_, _ = fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="0" y="14" font-weight="bold">%s</text>`+"\n", title)
	x := 200
	for _, s := range []appraise.State{appraise.Trusted, appraise.Untrusted, appraise.Stale, appraise.Pending, appraise.Unconfigured, appraise.Unreachable, appraise.Rollback, appraise.Error} {
		if slices.ContainsFunc(events, func(e api.Event) bool { return e.State == s }) {
			_, _ = fmt.Fprintf(&b, `<rect x="%d" y="4" width="12" height="12" fill="%s"/><text x="%d" y="14">%s</text>`+"\n", x, plotColours[s], x+16, s)
			x += 120
		}
	}
	for i, e := range events {
		end := now
		if i+1 < len(events) {
			end = events[i+1].Time
		}
		colour := plotColours[e.State]
		if colour == "" {
			colour = "#000"
		}
		_, _ = fmt.Fprintf(&b, `<rect x="%.2f" y="%d" width="%.2f" height="%d" fill="%s"><title>%s from %s</title></rect>`+"\n",
			at(e.Time), plotTop, max(at(end)-at(e.Time), 0.5), plotTall, colour, html.EscapeString(harmless(string(e.State))), shownTime(e.Time))
	}
	_, _ = fmt.Fprintf(&b, `<text x="0" y="%d">%s</text><text x="%d" y="%[1]d" text-anchor="end">%[4]s</text>`+"\n</svg>\n",
		plotTop+plotTall+16, shownTime(from), plotWide, shownTime(now))
	return b.String()
}
