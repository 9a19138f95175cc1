package lifecycle

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// times holds, for each event, how long its verdicts took.
type times map[string][]time.Duration

func (t times) note(event string, took time.Duration) {
	if event != "" {
		t[event] = append(t[event], took)
	}
}

func (t times) text(event string) string {
	var out []string
	for _, d := range t[event] {
		out = append(out, fmt.Sprintf("%.1f s", d.Seconds()))
	}
	return strings.Join(out, ", ")
}

// tell prints the rows of this run.
func (t times) tell(to *testing.T) {
	for _, c := range chapters() {
		for _, e := range c.events {
			if _, ok := t[e.name]; ok {
				to.Log("\n" + e.row(t.text(e.name)))
			}
		}
	}
}

func (e event) row(took string) string {
	return fmt.Sprintf("| %s | %s | %s | %s |", e.name, e.sees, e.verdict, took)
}

const (
	document = "../../docs/lifecycle.md"
	head     = "| event | what the operator sees | verdict | time until it |\n|---|---|---|---|\n"
)

// table is a chapter's rows; took gives the last cell of each.
func (c chapter) table(took func(event) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n%s", c.title, head)
	for _, e := range c.events {
		b.WriteString(e.row(took(e)) + "\n")
	}
	return b.String()
}

const begin, end = "<!-- begin: written by `make lifecycle-table` -->\n\n", "<!-- end -->\n"

// writeTable writes the rows, with the times of this run or, for what has not run, those that are there.
func writeTable(t *testing.T, took times) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has lost its marks", document)
	}
	old := func(e event) string {
		for line := range strings.Lines(rest) {
			if cells := strings.Split(strings.TrimSpace(line), " | "); strings.HasPrefix(line, "| "+e.name+" |") {
				return strings.TrimSuffix(cells[len(cells)-1], " |")
			}
		}
		return ""
	}
	var b strings.Builder
	for _, c := range chapters() {
		b.WriteString(c.table(func(e event) string { return cmp.Or(took.text(e.name), old(e)) }) + "\n")
	}
	if err := os.WriteFile(filepath.Clean(document), []byte(before+begin+b.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTable_of_the_document_is_that_of_the_tests(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok1 := strings.Cut(string(text), begin)
	rows, _, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has lost its marks", document)
	}
	var want, got []string
	names := map[string]bool{}
	for _, c := range chapters() {
		want = append(want, "### "+c.title)
		for _, e := range c.events {
			if names[e.name] {
				t.Errorf("two events are called %q", e.name)
			}
			names[e.name] = true
			want = append(want, e.row(""))
		}
	}
	for line := range strings.Lines(rows) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.Contains(head, line):
		case strings.HasPrefix(line, "|"):
			cells := strings.Split(strings.Trim(line, "|"), "|")
			if strings.TrimSpace(cells[len(cells)-1]) == "" {
				t.Errorf("no time was measured for: %s", line)
			}
			got = append(got, "|"+strings.Join(cells[:len(cells)-1], "|")+"|  |")
		default:
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the document has\n%s\nand the tests have\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
