package web

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// picture is SVG in the making. Colours come from the page's style sheet, by class.
type picture struct{ strings.Builder }

// add appends what format makes; every string among args is escaped.
func (p *picture) add(format string, args ...any) {
	for i, a := range args {
		switch v := a.(type) {
		case string:
			args[i] = html.EscapeString(v)
		case appraise.State:
			args[i] = html.EscapeString(string(v))
		}
	}
	fmt.Fprintf(p, format, args...)
}

func (p *picture) html() template.HTML { return template.HTML(p.String()) } //nolint:gosec // add escapes

// donut is how many machines are in each state.
type donut struct {
	What  string // "hosts"
	List  string // path of the list
	Total int
	Parts []part
}

type part struct {
	State appraise.State
	Count int
}

// newDonut orders counts by gravity.
func newDonut(what, list string, c api.Counts) donut {
	d := donut{What: what, List: list, Total: total(c)}
	for _, s := range states() {
		if c[s] > 0 {
			d.Parts = append(d.Parts, part{s, c[s]})
		}
	}
	return d
}

// Trusted is the part of machines that are TRUSTED; 0 where there are none.
func (d donut) Trusted() float64 {
	for _, p := range d.Parts {
		if p.State == appraise.Trusted {
			return float64(p.Count) / float64(d.Total)
		}
	}
	return 0
}

// SVG draws the ring. The legend beside it says the same in words.
func (d donut) SVG() template.HTML {
	const radius = 42.0
	round := 2 * math.Pi * radius
	var p picture
	p.add(`<svg class="donut" viewBox="0 0 120 120" role="img" aria-label="%d %s, %s TRUSTED">`, d.Total, d.What, percent(d.Trusted()))
	p.add(`<circle class="ring" cx="60" cy="60" r="%g" fill="none" stroke-width="14"/>`, radius)
	at := 0.0
	for _, x := range d.Parts {
		length := round * float64(x.Count) / float64(d.Total)
		shown := math.Max(length, 2) // a single bad one among thousands is still seen
		gap := 0.0
		if len(d.Parts) > 1 {
			gap = math.Min(1.5, shown/2)
		}
		p.add(`<circle class="arc s-%s" cx="60" cy="60" r="%g" fill="none" stroke-width="14" stroke-dasharray="%.2f %.2f" stroke-dashoffset="%.2f" transform="rotate(-90 60 60)"><title>%s: %d</title></circle>`,
			strings.ToLower(string(x.State)), radius, shown-gap, round-shown+gap, -at, x.State, x.Count)
		at += length
	}
	middle := "–"
	if d.Total > 0 {
		middle = percent(d.Trusted())
	}
	p.add(`<text class="big" x="60" y="63" text-anchor="middle">%s</text><text class="small" x="60" y="76" text-anchor="middle">trusted</text></svg>`, middle)
	return p.html()
}

// segment is a time in which a machine had one state.
type segment struct {
	State    appraise.State
	From, To time.Time
	Why      string
}

// segments makes what a machine was between from and to out of its events, newest first. Before the oldest
// one it was what that event says it had been.
func segments(events []api.Event, from, to time.Time) []segment {
	var out []segment
	end := to
	before := appraise.State("")
	for _, e := range events {
		if e.Kind != api.EventVerdict || !e.Time.Before(end) {
			continue
		}
		s := segment{State: e.State, From: e.Time, To: end, Why: why(e)}
		if s.From.Before(from) {
			s.From = from
		}
		out = append(out, s)
		end, before = s.From, e.Before
		if !e.Time.After(from) {
			break
		}
	}
	if before != "" && end.After(from) {
		out = append(out, segment{State: before, From: from, To: end})
	}
	return out
}

func why(e api.Event) string {
	if len(e.Reasons) > 0 {
		return e.Reasons[0].Text
	}
	return ""
}

// height is how tall a state stands in the strip, so that colour is not all that tells it.
func height(s appraise.State) int {
	switch s {
	case appraise.Rollback, appraise.Untrusted:
		return 36
	case appraise.Error, appraise.Unreachable:
		return 28
	case appraise.Stale, appraise.Pending, appraise.Unconfigured:
		return 20
	}
	return 12
}

// strip draws segments over time: the worse, the taller.
func strip(list []segment, from, to time.Time) template.HTML {
	var p picture
	p.add(`<svg class="strip" viewBox="0 0 1000 36" preserveAspectRatio="none" role="img" aria-label="states over time; the list below has them in words">`)
	p.add(`<rect class="track" x="0" y="0" width="1000" height="36"/>`)
	whole := to.Sub(from).Seconds()
	for _, s := range list {
		x := 1000 * s.From.Sub(from).Seconds() / whole
		w := math.Max(1000*s.To.Sub(s.From).Seconds()/whole, 1.5)
		h := height(s.State)
		title := fmt.Sprintf("%s, %s to %s UTC", s.State, s.From.UTC().Format("01-02 15:04:05"), s.To.UTC().Format("01-02 15:04:05"))
		if s.Why != "" {
			title += ": " + plain(s.Why, maxName)
		}
		p.add(`<rect class="s-%s" x="%.2f" y="%d" width="%.2f" height="%d"><title>%s</title></rect>`,
			strings.ToLower(string(s.State)), x, 36-h, w, h, title)
	}
	p.add(`</svg>`)
	return p.html()
}

// spark draws a line of values between 0 and 1 without axes.
func spark(values []float64) template.HTML {
	var p picture
	p.add(`<svg class="spark" viewBox="0 0 300 40" preserveAspectRatio="none" role="img" aria-label="share of TRUSTED verdicts over the last six hours"><path class="line" fill="none" d="`)
	pen := "M"
	for i, v := range values {
		if math.IsNaN(v) {
			pen = "M"
			continue
		}
		x := 300 * float64(i) / math.Max(float64(len(values)-1), 1)
		p.add(`%s%.1f %.1f`, pen, x, 38-36*math.Min(math.Max(v, 0), 1))
		pen = "L"
	}
	p.add(`"/></svg>`)
	return p.html()
}
