package metrics_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"virt-attest/verifier/metrics"
)

var (
	descName   = regexp.MustCompile(`fqName: "(virt_attest_\w+)"`)
	descLabels = regexp.MustCompile(`variableLabels: \{(.*?)\}`)
	constLabel = regexp.MustCompile(`(\w+)="[^"]*"`)
)

// labels gives every metric with its labels.
func labels(t *testing.T) map[string][]string {
	out := map[string][]string{}
	for _, d := range metrics.Describe(t.Context()) {
		name := descName.FindStringSubmatch(d)
		if name == nil {
			continue // go_, process_
		}
		var l []string
		if v := descLabels.FindStringSubmatch(d); v != nil && v[1] != "" {
			l = strings.Split(v[1], ",")
		}
		_, consts, _ := strings.Cut(d, "constLabels: {")
		for _, c := range constLabel.FindAllStringSubmatch(consts, -1) {
			l = append(l, c[1])
		}
		slices.Sort(l)
		out[name[1]] = l
	}
	if len(out) < 20 {
		t.Fatalf("only %d metrics: %v", len(out), out)
	}
	return out
}

func Test_every_metric_is_documented_with_its_labels_and_nothing_else_is(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	have := labels(t)
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(virt_attest_\\w+)` \\| (\\w+) \\| (.*?) ?\\| ").FindAllStringSubmatch(string(doc), -1) {
		seen[m[1]] = true
		for _, l := range have[m[1]] {
			if !strings.Contains(m[3], "`"+l+"`") {
				t.Errorf("docs/metrics.md: %s has a label %s", m[1], l)
			}
		}
		if len(have[m[1]]) == 0 && m[3] != "" {
			t.Errorf("docs/metrics.md: %s has no labels, not %s", m[1], m[3])
		}
	}
	if got, want := slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(have)); !slices.Equal(got, want) {
		t.Errorf("docs/metrics.md has\n%q\nthere are\n%q", got, want)
	}
	known(t, "docs/metrics.md", string(doc), have)
}

func Test_the_dashboard_asks_for_metrics_and_labels_that_exist(t *testing.T) {
	src, err := os.ReadFile("../../docs/grafana/virt-attest.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(src, &board); err != nil {
		t.Fatal(err)
	}
	have := labels(t)
	used := map[string]bool{}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			maps.Copy(used, known(t, p.Title, target.Expr, have))
		}
	}
	for name := range have {
		if !used[name] {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
	known(t, "the dashboard", string(src), have)
}

var (
	metricName = regexp.MustCompile(`virt_attest_\w+`)
	grouping   = regexp.MustCompile(`by \(([\w, ]+)\)`)
	selector   = regexp.MustCompile(`(virt_attest_\w+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`(\w+)(?:=~|!=|!~|=)\\?"`)
)

// known checks the metrics and labels that a text names, and gives the metrics.
func known(t *testing.T, where, text string, have map[string][]string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	base := func(name string) string {
		if _, ok := have[name]; ok {
			return name
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if cut, ok := strings.CutSuffix(name, suffix); ok {
				return cut
			}
		}
		return name
	}
	for _, name := range metricName.FindAllString(text, -1) {
		out[base(name)] = true
		if _, ok := have[base(name)]; !ok {
			t.Errorf("%s: there is no %s", where, name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(text, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if m[1] != "job" && !slices.Contains(have[base(s[1])], m[1]) {
				t.Errorf("%s: %s has no label %s", where, s[1], m[1])
			}
		}
	}
	all := []string{"le", "instance", "job"}
	for name := range out {
		all = append(all, have[name]...)
	}
	for _, g := range grouping.FindAllStringSubmatch(text, -1) {
		for l := range strings.SplitSeq(g[1], ",") {
			if !slices.Contains(all, strings.TrimSpace(l)) {
				t.Errorf("%s: no label %s", where, l)
			}
		}
	}
	return out
}
