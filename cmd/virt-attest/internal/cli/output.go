package cli

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
)

func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.out, format, args...) }

// table prints rows in virsh's manner: a heading, a rule, columns three blanks apart.
func (a *app) table(heading []string, rows [][]string) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		for i := range row {
			row[i] = clean(row[i])
		}
		_, _ = fmt.Fprintln(w, " "+strings.Join(row, "\t"))
	}
	_ = w.Flush()
	lines := strings.SplitAfter(b.String(), "\n")
	width := 0
	for _, l := range lines {
		width = max(width, len([]rune(strings.TrimRight(l, " \n"))))
	}
	for i, l := range lines {
		l = strings.TrimRight(l, " \n")
		switch {
		case i == 0:
			a.printf("%s\n%s\n", l, strings.Repeat("-", width+1))
		case l != "":
			a.printf("%s\n", a.paint(l))
		}
	}
}

// clean makes text that a machine sent harmless on a terminal and in a table.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

var colours = map[appraise.State]string{
	appraise.Trusted: "32", appraise.Untrusted: "31;1", appraise.Rollback: "31;1", appraise.Error: "35",
	appraise.Stale: "33", appraise.Pending: "33", appraise.Unconfigured: "33", appraise.Unreachable: "33",
}

// coloured reports whether standard output takes colours. What a colour says is said in words too.
func (a *app) coloured() bool {
	return !a.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(a.out)
}

// paint colours the state word of a line, on a terminal.
func (a *app) paint(line string) string {
	if !a.coloured() {
		return line
	}
	for _, word := range strings.Fields(line) {
		if colours[appraise.State(word)] != "" {
			return strings.Replace(line, word, a.colour(appraise.State(word)), 1)
		}
	}
	return line
}

// colour is a state's word in its colour, on a terminal.
func (a *app) colour(s appraise.State) string {
	if c := colours[s]; c != "" && a.coloured() {
		return "\x1b[" + c + "m" + string(s) + "\x1b[0m"
	}
	return clean(string(s))
}

func since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t).Round(time.Second)
	if d < 0 && d > -time.Minute { // clocks differ
		d = 0
	}
	if d < 0 {
		return t.Local().Format("2006-01-02 15:04")
	}
	if d < 2*time.Minute {
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	}
	if d < 2*time.Hour {
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	}
	return t.Local().Format("2006-01-02 15:04")
}

// reasons prints why a machine is not trusted, at most limit of them (0: all).
func (a *app) reasons(r appraise.Result, limit int) {
	for i, why := range r.Reasons {
		if limit > 0 && i == limit {
			a.printf("      … and %d more: virt-attest info %s\n", len(r.Reasons)-limit, clean(r.Name))
			return
		}
		a.printf("      %s: %s\n", why.Code, clean(why.Text))
		if why.Hint != "" {
			a.printf("        → %s\n", clean(why.Hint))
		}
	}
}

func label(r appraise.Result) string {
	switch {
	case r.Name != "":
		return r.Name
	case r.UUID == (attest.UUID{}):
		return cmp.Or(r.Host, "host") // saved evidence does not tell a host's name
	}
	return r.UUID.String()
}

func number(n int64) string { return strconv.FormatInt(n, 10) }
