package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

// finding is one line of doctor.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // PASS, WARN, FAIL, SKIP
	Text   string `json:"text,omitempty"`
	Do     string `json:"do,omitempty"` // what to do about it
}

// Results of a check. Only fail changes the exit status.
const (
	pass = "PASS"
	warn = "WARN"
	bad  = "FAIL"
	skip = "SKIP" // could not be looked at, for a reason that another line has
)

// doctor looks at one thing after the other.
type doctor struct {
	*app
	client   *api.Client
	overview *api.Overview
	found    []finding
}

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look whether everything is as it should be, and say what to do where it is not", Args: noArgs, ValidArgsFunction: nothing,
		Long: "Checks, in the manner of virt-host-validate, the configuration, the way to the Verifier, versions, clocks, certificates, the database, hosts,\n" +
			"machines and alerts. Exit status: 1 where a check fails, 0 elsewhere; warnings do not count.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{app: a}
			d.run(cmd.Context())
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return d.show()
		},
	}
}

func (d *doctor) run(ctx context.Context) {
	d.configuration()
	if d.client != nil {
		defer d.client.Close()
	}
	d.certificates(ctx)
	d.reach(ctx)
	d.database(ctx)
	d.clocks()
	d.hosts()
	d.machines()
	d.alerts()
	d.replicas()
}

// report notes the outcome of a check, and with -o table prints it at once.
func (d *doctor) report(check, result, do, text string, args ...any) {
	f := finding{check, result, clean(fmt.Sprintf(text, args...)), do}
	d.found = append(d.found, f)
	if d.output != "table" && d.output != "wide" || d.quiet && result == pass {
		return
	}
	d.printf("%12s: %-46s : %s", "virt-attest", "Checking "+check, d.mark(result))
	if f.Text != "" {
		d.printf(" (%s)", f.Text)
	}
	d.printf("\n")
	if do != "" && result != pass {
		d.printf("%14s%s\n", "", "→ "+do)
	}
}

// mark colours a result on a terminal.
func (d *doctor) mark(result string) string {
	if c := map[string]string{pass: "32", warn: "33", bad: "31;1"}[result]; c != "" && d.coloured() {
		return "\x1b[" + c + "m" + result + "\x1b[0m"
	}
	return result
}

func (d *doctor) show() error {
	failed := slices.ContainsFunc(d.found, func(f finding) bool { return f.Result == bad })
	switch d.output {
	case "name":
		for _, f := range d.found {
			if f.Result == bad || f.Result == warn {
				d.printf("%s\n", f.Check)
			}
		}
	default:
		if _, err := d.structured(d.found); err != nil {
			return err
		}
	}
	if failed {
		return &exitError{exitNotTrusted, errVerdict}
	}
	return nil
}

func (d *doctor) configuration() {
	err := d.conf.checkFiles()
	if err == nil {
		d.client, err = d.conf.client()
	}
	if err != nil {
		d.report("the configuration", bad, "Correct "+d.configName()+"; virt-attest config check says more.", "%v", err)
		return
	}
	d.report("the configuration", pass, "", "")
}

func (d *doctor) configName() string {
	if d.configFile != "" {
		return d.configFile
	}
	return defaultConfig
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// some names a few of many.
func some(names []string) string {
	const few = 5
	if len(names) > few {
		return strings.Join(names[:few], ", ") + fmt.Sprintf(" and %d more", len(names)-few)
	}
	return strings.Join(names, ", ")
}
