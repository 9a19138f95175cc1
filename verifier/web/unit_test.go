package web

import (
	"flag"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

var update = flag.Bool("update", false, "write the pictures that tests compare with")

// golden compares a picture with the one on record.
func golden(t *testing.T, name string, got template.HTML) {
	t.Helper()
	file := filepath.Join("testdata", name)
	text := strings.ReplaceAll(string(got), "><", ">\n<") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text {
		t.Errorf("%s is another picture than on record (-update writes it):\n%s", name, text)
	}
}

func Test_pictures_are_those_on_record(t *testing.T) {
	golden(t, "donut.svg", newDonut("VMs", "/vms", api.Counts{appraise.Trusted: 996, appraise.Untrusted: 1, appraise.Stale: 3}).SVG())
	golden(t, "donut_empty.svg", newDonut("VMs", "/vms", nil).SVG())
	at := func(h int) time.Time { return noon().Add(time.Duration(h) * time.Hour) }
	list := segments([]api.Event{
		{Kind: api.EventVerdict, Time: at(-1), State: appraise.Untrusted, Before: appraise.Trusted, Reasons: []appraise.Reason{{Text: "<b>\u202e"}}},
		{Kind: api.EventVM, Time: at(-2)},
		{Kind: api.EventVerdict, Time: at(-10), State: appraise.Trusted, Before: appraise.Pending},
	}, at(-24), at(0))
	golden(t, "strip.svg", strip(list, at(-24), at(0)))
	golden(t, "spark.svg", spark([]float64{0, 1, math.NaN(), 0.5, 2}))
	p := plot{Key: "k", Title: "A <plot>", From: noon(), Step: 60, show: seconds, Lines: []curve{{"p50", []float64{0.1, 0.2, math.NaN(), 0.4}}, {"p99", []float64{1, 2, 3, 3.7}}}}
	golden(t, "plot.svg", p.SVG(true))
	h := api.TopologyHost{ID: "h1", Name: "kvm\x1b1", State: appraise.Trusted, Online: true}
	for i := range 30 {
		h.VMs = append(h.VMs, api.TopologyVM{Name: "vm" + strconv.Itoa(i), State: states()[7-i/29], Link: i != 3})
	}
	golden(t, "topology.svg", drawHost(h).SVG)
}

func Test_a_machines_past_is_what_its_events_say_and_not_more(t *testing.T) {
	at := func(h int) time.Time { return noon().Add(time.Duration(h) * time.Hour) }
	if got := segments(nil, at(-24), at(0)); len(got) != 0 {
		t.Errorf("made up: %v", got)
	}
	got := segments([]api.Event{{Kind: api.EventVerdict, Time: at(-48), State: appraise.Untrusted, Before: appraise.Trusted}, {Kind: api.EventVerdict, Time: at(-50), State: appraise.Trusted}}, at(-24), at(0))
	if len(got) != 1 || got[0].State != appraise.Untrusted || !got[0].From.Equal(at(-24)) || !got[0].To.Equal(at(0)) {
		t.Errorf("an older verdict that still holds: %v", got)
	}
	if got := segments([]api.Event{{Kind: api.EventVerdict, Time: at(-1), State: appraise.Trusted}}, at(-24), at(0)); len(got) != 1 || !got[0].From.Equal(at(-1)) {
		t.Errorf("before the first verdict there was none: %v", got)
	}
}

func Test_nothing_that_cannot_be_seen_is_shown_as_it_is(t *testing.T) {
	for in, want := range map[string]string{
		"web01":                     "web01",
		"<b>&\"'":                   "&lt;b&gt;&amp;&#34;&#39;",
		"a\x1b[0m":                  `a<span class="esc">\x1b</span>[0m`,
		"x\u202ey":                  `x<span class="esc">\xe2\x80\xae</span>y`,
		"\xff":                      `<span class="esc">\xff</span>`,
		"e\u0301":                   "e\u0301",
		"שלום 日本":                   "שלום 日本",
		"12345678901":               `1234567890<span class="cut">… and 1 bytes more</span>`,
		"a\u0301\u0301\u0301\u0301": "a\u0301\u0301\u0301" + `<span class="esc">\xcc\x81</span>`,
	} {
		if got := string(visible(in, 10)); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
	if got := plain("a\u202eb"+strings.Repeat("c", 20), 5); got != `a\xe2\x80\xaebcc…` {
		t.Errorf("plain: %s", got)
	}
	if got := string(source("a\x00\n<b>\n")); got != "a<span class=\"esc\">\\x00</span>\n&lt;b&gt;\n" {
		t.Errorf("source: %q", got)
	}
}

func FuzzVisible(f *testing.F) {
	for _, s := range hostile() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := string(visible(s, 100))
		text := strings.NewReplacer(`<span class="esc">`, "", `<span class="cut">`, "", "</span>", "").Replace(got)
		if strings.ContainsAny(text, "<>\"'") {
			t.Errorf("%q becomes markup: %s", s, got)
		}
		rest := runes(got, len(got), func(string) {}, func(h string) { t.Errorf("%q leaves %q", s, h) })
		if rest != 0 {
			t.Errorf("%q: %d bytes are left", s, rest)
		}
	})
}

func Test_digits_that_differ_are_marked(t *testing.T) {
	for _, c := range [][3]string{
		{"0011", "0011", "0011"}, {"0011", "", "0011"},
		{"0011", "0111", "0<mark>0</mark>11"}, {"0011", "00", "00<mark>11</mark>"},
		{"00000000ff", "00000000f0", `00000000<wbr><span class="gap"></span>f<mark>f</mark>`},
	} {
		if got := string(digits(c[0], c[1])); got != c[2] {
			t.Errorf("%s against %s: %s", c[0], c[1], got)
		}
	}
}

func Test_numbers_are_written_as_people_read_them(t *testing.T) {
	for got, want := range map[string]string{
		count(0): "0", count(999): "999", count(10000): "10\u202f000", count(1234567): "1\u202f234\u202f567", count(-1000): "-1\u202f000",
		percent(1): "100 %", percent(0.9999): "99.9 %", percent(0.5): "50 %", percent(math.NaN()): "–",
		seconds(0): "0 s", seconds(0.0000123): "12 µs", seconds(0.0123): "12.3 ms", seconds(12.34): "12.3 s",
		span(90 * time.Second): "90 s", span(3 * time.Hour): "3 h", span(72 * time.Hour): "3 days", span(time.Millisecond): "0 s",
		size(100): "100 B", size(2048): "2.0 KiB", size(3 << 20): "3.0 MiB", decimal(200000): "200 kB", plural(1, "VM"): "1 VM", plural(2, "VM"): "2 VMs",
	} {
		if got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
	for in, want := range map[float64]float64{0: 1, 0.3: 0.4, 1: 1, 3.7: 4, 4.1: 5, 7: 8, 99: 100, 101: 200} {
		if got, _ := scale(in); math.Abs(got-want) > 1e-9 {
			t.Errorf("an axis for %g ends at %g", in, got)
		}
	}
}

func Test_only_paths_of_this_site_are_gone_to(t *testing.T) {
	for _, bad := range []string{"", "vms", "https://evil.example", "//evil.example", `/\evil.example`, "/\t/evil.example", "javascript:alert(1)", "/a\r\nb"} {
		if got := local(bad); got != "/" {
			t.Errorf("%q leads to %q", bad, got)
		}
	}
	if got := local("/vms?q=a%2F"); got != "/vms?q=a%2F" {
		t.Errorf("an address of this site became %q", got)
	}
}

func Test_a_list_by_gravity_has_everything_once_and_the_gravest_first(t *testing.T) {
	c := newCrowd(500)
	for _, limit := range []int{1, 7, 100, 499, 500, 501} {
		var got []appraise.State
		seen := map[string]bool{}
		for p := (api.Page{Limit: limit}); ; {
			l, err := byGravity(api.MachineFilter{}, p, func(f api.MachineFilter, p api.Page) (*api.List[api.VM], error) {
				return c.VMs(t.Context(), admin(), f, p)
			})
			if err != nil || len(l.Items) == 0 || l.Total != 500 {
				t.Fatal(limit, err, len(l.Items), l.Total)
			}
			for _, v := range l.Items {
				got = append(got, v.Result.State)
				seen[v.UUID.String()] = true
			}
			if l.Next == "" {
				break
			}
			p.Cursor = l.Next
		}
		if len(got) != 500 || len(seen) != 500 {
			t.Errorf("%d a page: %d rows, %d VMs", limit, len(got), len(seen))
		}
		if !slices.IsSortedFunc(got, func(a, b appraise.State) int { return slices.Index(states(), a) - slices.Index(states(), b) }) {
			t.Errorf("%d a page: not in order", limit)
		}
	}
	for _, bad := range []string{"x", "9.", "-1.", "."} {
		_, err := byGravity(api.MachineFilter{}, api.Page{Cursor: bad, Limit: 10}, func(f api.MachineFilter, p api.Page) (*api.List[api.VM], error) {
			return c.VMs(t.Context(), admin(), f, p)
		})
		if !api.IsStatus(err, http.StatusBadRequest) {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
}

func Test_addresses_of_a_list_keep_what_was_asked_for(t *testing.T) {
	q := query{"/vms", url.Values{"q": {"web"}, "state": {"STALE"}, "cursor": {"300"}, "from": {"300"}, "back": {"", "100", "200"}, "done": {"saved"}}}
	if got := q.with("state", "ERROR"); got != "/vms?q=web&state=ERROR" {
		t.Error(got)
	}
	p := q.pager(100, 10_000, "400")
	for got, want := range map[string]string{
		p.First: "/vms?q=web&state=STALE", p.Previous: "/vms?back=&back=100&cursor=200&from=200&q=web&state=STALE",
		p.Next: "/vms?back=&back=100&back=200&back=300&cursor=400&from=400&q=web&state=STALE",
	} {
		if got != want {
			t.Error(got)
		}
	}
	if p.From != 301 || p.To != 400 || p.Total != 10_000 {
		t.Errorf("%+v", p)
	}
	for range 40 {
		u, err := url.Parse(q.pager(100, 10_000, "400").Next)
		if err != nil {
			t.Fatal(err)
		}
		q.values = u.Query()
	}
	if n := len(q.values["back"]); n != maxBack {
		t.Errorf("an address carries %d pages back", n)
	}
}

func Test_every_reason_is_explained(t *testing.T) {
	list := reasonTopics()
	if len(list) < 30 {
		t.Fatalf("%d reasons", len(list))
	}
	for _, x := range list {
		if len(x.Text) == 0 || len(x.Do) == 0 || x.Section == "" {
			t.Errorf("%s: %+v", x.Code, x)
		}
	}
}

func Test_a_plots_table_has_its_values(t *testing.T) {
	p := plot{Key: "latency", From: noon(), Step: 60, Lines: []curve{{"p50", []float64{1, math.NaN()}}, {"p99", []float64{2.5}}}}
	b, err := p.CSV()
	if err != nil || string(b) != "time,latency_p50,latency_p99\n2026-11-24T12:00:00Z,1,2.5\n2026-11-24T12:01:00Z,,\n" {
		t.Errorf("%q %v", b, err)
	}
}
