package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

// doctor looks at one thing after the other.
type doctor struct {
	*checklist
	client   *api.Client
	overview *api.Overview

	asked, answered time.Time // between which the overview's time must lie
}

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look whether everything is as it should be, and say what to do where it is not", Args: noArgs, ValidArgsFunction: nothing,
		Long: "Checks, in the manner of virt-host-validate, the configuration, the way to the Verifier, versions, clocks, certificates, the database, hosts,\n" +
			"machines and alerts. Exit status: 1 where a check fails, 0 elsewhere; warnings do not count.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{checklist: &checklist{app: a}}
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
