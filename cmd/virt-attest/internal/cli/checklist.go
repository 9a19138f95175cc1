package cli

import (
	"fmt"
	"slices"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
)

// Results of a check, of doctor and of host validate. Only bad changes the exit status.
const (
	pass = hostcheck.Pass
	warn = hostcheck.Warn
	bad  = hostcheck.Fail
	skip = hostcheck.Skip
)

// checklist prints checks as they are made, in the manner of virt-host-validate(1), and keeps them.
type checklist struct {
	*app
	found []hostcheck.Finding
}

// report notes the outcome of a check.
func (l *checklist) report(check string, result hostcheck.Result, do, text string, args ...any) {
	l.note(hostcheck.Finding{Check: check, Result: result, Text: fmt.Sprintf(text, args...), Do: do})
}

// note keeps a finding, and with -o table prints it at once.
func (l *checklist) note(f hostcheck.Finding) {
	f.Check, f.Text = clean(f.Check), clean(f.Text)
	l.found = append(l.found, f)
	if l.output != "table" && l.output != "wide" || l.quiet && f.Result == pass {
		return
	}
	l.printf("%12s: %-46s : %s", "virt-attest", "Checking "+f.Check, l.mark(f.Result))
	if f.Text != "" {
		l.printf(" (%s)", f.Text)
	}
	l.printf("\n")
	if f.Do != "" && f.Result != pass {
		l.printf("%14s%s\n", "", "→ "+f.Do)
	}
}

// mark colours a result on a terminal.
func (l *checklist) mark(r hostcheck.Result) string {
	if c := map[hostcheck.Result]string{pass: "32", warn: "33", bad: "31;1"}[r]; c != "" && l.coloured() {
		return "\x1b[" + c + "m" + string(r) + "\x1b[0m"
	}
	return string(r)
}

// show prints what note has not, and gives the exit status.
func (l *checklist) show() error {
	switch l.output {
	case "name":
		for _, f := range l.found {
			if f.Result == bad || f.Result == warn {
				l.printf("%s\n", f.Check)
			}
		}
	default:
		if _, err := l.structured(l.found); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(l.found, func(f hostcheck.Finding) bool { return f.Result == bad }) {
		return &exitError{exitNotTrusted, errVerdict}
	}
	return nil
}
