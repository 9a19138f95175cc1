package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one target with what was measured.
type row struct {
	what     string
	unit     string
	measured float64
	target   float64
	atLeast  bool   // the target is a lower bound
	yard     string // what it was compared with in the same run
}

// used is the measured value as a part of what the target allows: at most 1 is good.
func (r row) used() float64 {
	if r.atLeast {
		return r.target / r.measured
	}
	return r.measured / r.target
}

func (r row) cells() []any {
	sign, verdict := "≤", "met"
	if r.atLeast {
		sign = "≥"
	}
	if r.used() > 1 {
		verdict = "MISSED"
	}
	return []any{r.what, sign + " " + number(r.target) + " " + r.unit, number(r.measured) + " " + r.unit,
		fmt.Sprintf("%.2f", r.used()), verdict, r.yard}
}

func number(v float64) string {
	if v >= 1e6 {
		return fmt.Sprintf("%.2fM", v/1e6)
	}
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func printRows(out io.Writer, rows []row) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "What\tTarget\tMeasured\tOf target\t\tIn the same run")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.cells()...)
	}
	_ = w.Flush()
}

// median of at least one value.
func median[T float64 | time.Duration | uint64](values []T) T {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", d.Seconds()*1000) }
