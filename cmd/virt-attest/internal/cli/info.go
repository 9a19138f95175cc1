package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func (a *app) infoCmd() *cobra.Command {
	var host bool
	cmd := &cobra.Command{
		Use: "info DOMAIN", Short: "Show all that is known of a VM (or --host), with every reason",
		Args: exactArgs(1, "one domain (or, with --host, one host)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.machine(cmd.Context(), args[0], host)
			if err != nil {
				return err
			}
			return a.showInfo(r)
		},
	}
	cmd.Flags().BoolVar(&host, "host", false, "the argument is a host's name or ID")
	cmd.ValidArgsFunction = a.completeDomains
	return cmd
}

// machine finds the Verifier's last result about a VM, or a host.
func (a *app) machine(ctx context.Context, arg string, host bool) (*appraise.Result, error) {
	client, err := a.conf.client()
	if err != nil {
		return nil, err
	}
	if host {
		h, err := findHost(ctx, client, arg)
		if err != nil {
			return nil, err
		}
		r := h.Result
		r.Name, r.Host = h.Name, h.ID
		return &r, nil
	}
	vms, err := client.VMs(ctx)
	if err != nil {
		return nil, asked(err)
	}
	want := a.resolveAll([]string{arg})[0]
	var found []appraise.Result
	for _, v := range vms {
		if v.UUID.String() == want || v.Name == want {
			r := v.Result
			r.UUID, r.Name, r.Host = v.UUID, v.Name, v.Host
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return nil, fail(exitWrongState, "the Verifier does not know VM '%s' (was it enabled, started and attested?)", clean(arg))
	case 1:
		return &found[0], nil
	default:
		return nil, fail(exitUsage, "%d VMs have the name '%s'; give the UUID", len(found), clean(arg))
	}
}

// machineID is how the API calls the machine that r is about.
func machineID(r *appraise.Result) string {
	if r.UUID == (attest.UUID{}) {
		return r.Host
	}
	return r.UUID.String()
}

func findHost(ctx context.Context, client *api.Client, arg string) (*api.Host, error) {
	hosts, err := client.Hosts(ctx)
	if err != nil {
		return nil, asked(err)
	}
	var found *api.Host
	for i, h := range hosts {
		if h.ID == arg {
			return &hosts[i], nil
		}
		if h.Name == arg {
			if found != nil {
				return nil, fail(exitUsage, "several hosts call themselves '%s'; give the ID", clean(arg))
			}
			found = &hosts[i]
		}
	}
	if found == nil {
		return nil, fail(exitWrongState, "the Verifier does not know host '%s'", clean(arg))
	}
	return found, nil
}

func (a *app) showInfo(r *appraise.Result) error {
	if a.output == "json" {
		if err := a.printJSON(r); err != nil {
			return err
		}
		return verdict([]appraise.State{r.State})
	}
	line := func(name, value string) {
		if value != "" {
			a.printf("%-16s %s\n", name+":", a.paint(clean(value)))
		}
	}
	line("Name", r.Name)
	if r.UUID != (attest.UUID{}) {
		line("UUID", r.UUID.String())
	}
	line("Host", r.Host)
	line("State", string(r.State))
	if r.Scheme != 0 {
		line("Scheme", r.Scheme.String())
	}
	line("Attested", since(r.Time))
	if !r.Expires.IsZero() {
		line("Expires", r.Expires.Local().Format("2006-01-02 15:04:05"))
	}
	line("Report", r.Report)
	if len(r.EKName) > 0 {
		line("TPM EK name", r.EKName.String())
	}
	if r.Epoch != 0 {
		line("TPM power-ons", fmt.Sprint(r.Epoch))
	}
	line("IMA entries", fmt.Sprint(r.Entries))
	line("Kernel", r.Kernel)
	line("Agent", r.Agent)
	line("Reference", r.RIM)
	if len(r.Reasons) > 0 {
		a.printf("Reasons:\n")
		a.reasons(*r, 0)
	}
	return verdict([]appraise.State{r.State})
}
