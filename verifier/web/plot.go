package web

import (
	"encoding/csv"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"virt-attest/verifier/api"
)

// plot is one figure over time.
type plot struct {
	Key, Title, Unit string
	Lines            []curve
	From             time.Time
	Step             float64              // seconds
	show             func(float64) string // a value
	top              float64              // of the axis; 0: as the values need
}

// curve is one line of a plot.
type curve struct {
	Name   string
	Values []float64
}

// plots makes every figure of the service's numbers.
func plots(s *api.Stats) []plot {
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
	q := func(k api.Quantiles) []curve { return []curve{{"p50", k.P50}, {"p95", k.P95}, {"p99", k.P99}} }
	list := []plot{
		{Key: "rate", Title: "VM appraisals per second", Unit: "1/s", Lines: []curve{{"VMs", s.Series.VMs}}, show: number},
		{Key: "trusted", Title: "Verdicts that were TRUSTED", Unit: "share", Lines: []curve{{"trusted", s.Series.Trusted}}, show: percent, top: 1},
		{Key: "latency", Title: "Challenge made to report committed", Unit: "s", Lines: q(s.Series.Latency), show: seconds},
		{Key: "appraise", Title: "Evidence received to report committed", Unit: "s", Lines: q(s.Series.Appraise), show: seconds},
		{Key: "queue", Title: "Challenges under way", Unit: "", Lines: []curve{{"challenges", s.Series.Queue}}, show: number},
		{Key: "per_quote", Title: "VMs per quote of a host's TPM", Unit: "VMs", Lines: []curve{{"VMs", s.Series.PerQuote}}, show: number},
		{Key: "entries", Title: "New IMA entries per second", Unit: "1/s", Lines: []curve{{"entries", s.Series.Entries}}, show: number},
		{Key: "bytes", Title: "Evidence received per second", Unit: "B/s", Lines: []curve{{"bytes", s.Series.Bytes}}, show: decimal},
	}
	for i := range list {
		list[i].From, list[i].Step = s.From, s.Step
	}
	return list
}

// decimal gives bytes in powers of ten, as axes have them.
func decimal(v float64) string {
	for _, u := range []string{"B", "kB", "MB", "GB"} {
		if v < 1000 {
			return strconv.FormatFloat(v, 'g', 3, 64) + " " + u
		}
		v /= 1000
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + " TB"
}

// points is how many values a plot has.
func (p plot) points() int {
	n := 0
	for _, l := range p.Lines {
		n = max(n, len(l.Values))
	}
	return n
}

// scale gives a round value at or above the largest one, and how many parts the axis has.
func scale(largest float64) (top float64, parts int) {
	if largest <= 0 || math.IsInf(largest, 0) || math.IsNaN(largest) {
		return 1, 4
	}
	unit := math.Pow(10, math.Floor(math.Log10(largest)))
	for _, m := range []struct {
		f float64
		n int
	}{{1, 4}, {2, 4}, {4, 4}, {5, 5}, {8, 4}, {10, 5}} {
		if largest <= m.f*unit*1.0000001 {
			return m.f * unit, m.n
		}
	}
	return 10 * unit, 5
}

// The area of the plot within its picture.
const (
	plotWide, plotTall = 620, 220
	plotLeft, plotTop  = 64, 12
	plotW, plotH       = 544, 172
)

// ink is what a downloaded picture is drawn with, where there is no style sheet.
const ink = `<style>text{font:11px sans-serif;fill:#444}.grid{stroke:#ccc}.axis{stroke:#666}.line{fill:none;stroke-width:1.8}` +
	`.l0{stroke:#0b5cad}.l1{stroke:#a04500;stroke-dasharray:6 3}.l2{stroke:#7a1f8a;stroke-dasharray:2 2}.hit{fill:transparent}</style>`

// SVG draws the plot. whole makes it a file that stands by itself.
func (p plot) SVG(whole bool) template.HTML {
	largest, n := p.top, p.points()
	if largest == 0 {
		for _, l := range p.Lines {
			for _, v := range l.Values {
				if !math.IsNaN(v) {
					largest = math.Max(largest, v)
				}
			}
		}
	}
	top, parts := scale(largest)
	var out picture
	out.add(`<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 %d %d" role="img" aria-label="%s">`, plotWide, plotTall, p.describe())
	if whole {
		out.WriteString(ink)
		out.add(`<title>%s</title>`, p.Title)
	}
	for i := range parts + 1 {
		v := top * float64(i) / float64(parts)
		y := plotTop + plotH - plotH*float64(i)/float64(parts)
		out.add(`<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`, plotLeft, plotLeft+plotW, y, y, plotLeft-6, y+4, p.show(v))
	}
	p.times(&out, n)
	for i, l := range p.Lines {
		out.add(`<path class="line l%d" fill="none" d="%s"/>`, i, trace(l.Values, top))
	}
	p.hits(&out, n)
	out.add(`</svg>`)
	return out.html()
}

// describe says in words what the picture shows.
func (p plot) describe() string {
	s := p.Title
	for _, l := range p.Lines {
		for i := len(l.Values) - 1; i >= 0; i-- {
			if !math.IsNaN(l.Values[i]) {
				s += ", " + l.Name + " now " + p.show(l.Values[i])
				break
			}
		}
	}
	return s
}

// times draws the time axis, in UTC.
func (p plot) times(out *picture, n int) {
	layout := "15:04"
	if p.Step*float64(n) > 36*3600 {
		layout = "01-02 15:04"
	}
	const marks = 5
	anchors := [marks + 1]string{"start", "middle", "middle", "middle", "middle", "end"}
	for i := range marks + 1 {
		x := plotLeft + plotW*float64(i)/marks
		t := p.From.Add(time.Duration(p.Step * float64(n) * float64(i) / marks * float64(time.Second)))
		out.add(`<line class="axis" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text x="%.1f" y="%d" text-anchor="%s">%s</text>`,
			x, x, plotTop+plotH, plotTop+plotH+4, x, plotTop+plotH+18, anchors[i], t.UTC().Format(layout))
	}
	out.add(`<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>`, plotLeft, plotLeft+plotW, plotTop+plotH, plotTop+plotH)
}

// trace gives a line's path; it is broken where there is no value.
func trace(values []float64, top float64) string {
	var b strings.Builder
	pen := "M"
	for i, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			pen = "M"
			continue
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", pen, centre(i, len(values)), plotTop+plotH-plotH*math.Min(math.Max(v/top, 0), 1))
		pen = "L"
	}
	return b.String()
}

func centre(i, n int) float64 { return plotLeft + plotW*(float64(i)+0.5)/float64(n) }

// hits draws what shows a moment's values under the mouse.
func (p plot) hits(out *picture, n int) {
	for i := range n {
		t := p.From.Add(time.Duration(p.Step * float64(i) * float64(time.Second)))
		title := t.UTC().Format("2006-01-02 15:04:05 UTC")
		for _, l := range p.Lines {
			if i < len(l.Values) {
				title += "\n" + l.Name + ": " + p.show(l.Values[i])
			}
		}
		out.add(`<rect class="hit" fill="transparent" x="%.2f" y="%d" width="%.2f" height="%d"><title>%s</title></rect>`, plotLeft+plotW*float64(i)/float64(n), plotTop, plotW/float64(n), plotH, title)
	}
}

// CSV gives the plot's values as a table.
func (p plot) CSV() ([]byte, error) {
	var b strings.Builder
	w := csv.NewWriter(&b)
	head := []string{"time"}
	for _, l := range p.Lines {
		head = append(head, p.Key+"_"+l.Name)
	}
	_ = w.Write(head)
	for i := range p.points() {
		row := []string{p.From.Add(time.Duration(p.Step * float64(i) * float64(time.Second))).UTC().Format(time.RFC3339)}
		for _, l := range p.Lines {
			v := ""
			if i < len(l.Values) && !math.IsNaN(l.Values[i]) {
				v = strconv.FormatFloat(l.Values[i], 'g', -1, 64)
			}
			row = append(row, v)
		}
		_ = w.Write(row)
	}
	w.Flush()
	return []byte(b.String()), w.Error()
}

// performanceData is the page of plots.
type performanceData struct {
	Plots  []plot
	Hours  int
	Choice []int
}

// stats reads the numbers for the span that the address asks for.
func (c *call) stats() (*api.Stats, int, error) {
	hours := 6
	if s := c.r.URL.Query().Get("hours"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 24*31 {
			return nil, 0, api.NewProblem(http.StatusBadRequest, "plots go back 1 to 744 hours")
		}
		hours = n
	}
	s, err := c.svc.Stats(c.r.Context(), c.who, hours*3600, steps)
	return s, hours, err
}

func (c *call) performance() error {
	s, hours, err := c.stats()
	if err != nil {
		return err
	}
	return c.show("performance", "performance", "Performance", performanceData{plots(s), hours, []int{1, 6, 24, 168}})
}

// plotFile gives one plot as a picture or a table, to keep.
func (c *call) plotFile() error {
	key, kind, _ := strings.Cut(c.r.PathValue("file"), ".")
	s, _, err := c.stats()
	if err != nil {
		return err
	}
	for _, p := range plots(s) {
		switch {
		case p.Key != key:
		case kind == "svg":
			return c.download("image/svg+xml", p.Key+".svg", []byte(p.SVG(true)))
		case kind == "csv":
			b, err := p.CSV()
			return c.give(err, "text/csv; charset=utf-8", p.Key+".csv", b)
		}
	}
	return c.nothing()
}
