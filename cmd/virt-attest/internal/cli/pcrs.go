package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"virt-attest/attest"
)

func (a *app) pcrsCmd() *cobra.Command {
	var host bool
	cmd := &cobra.Command{
		Use: "pcrs DOMAIN", Short: "Show a machine's PCR values as last attested",
		Args: exactArgs(1, "one domain (or, with --host, one host)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			banks, err := a.machinePCRs(cmd.Context(), args[0], host)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printJSON(banks)
			}
			var rows [][]string
			for _, b := range banks {
				for _, p := range b.PCRs {
					rows = append(rows, []string{b.Alg.String(), strconv.Itoa(int(p.Index)), p.Value.String()})
				}
			}
			a.table([]string{"Bank", "PCR", "Value"}, rows)
			return nil
		},
	}
	cmd.Flags().BoolVar(&host, "host", false, "the argument is a host's name or ID")
	cmd.ValidArgsFunction = a.completeDomains
	return cmd
}

func (a *app) machinePCRs(ctx context.Context, arg string, host bool) ([]attest.PCRBank, error) {
	ev, vm, err := a.machineEvidence(ctx, arg, host)
	if err != nil {
		return nil, err
	}
	if vm == nil {
		return ev.Host.PCRs, nil
	}
	return vm.PCRs, nil
}

// machineEvidence fetches a machine's newest Evidence, with its VM's part unless it is a host.
func (a *app) machineEvidence(ctx context.Context, arg string, host bool) (*attest.Evidence, *attest.VMEvidence, error) {
	r, err := a.machine(ctx, arg, host)
	if err != nil {
		return nil, nil, err
	}
	client, err := a.conf.client()
	if err != nil {
		return nil, nil, err
	}
	b, err := client.MachineEvidence(ctx, machineID(r))
	if err != nil {
		return nil, nil, asked(err)
	}
	ev, err := attest.DecodeEvidence(b)
	if err != nil {
		return nil, nil, err
	}
	if host {
		return ev, nil, nil
	}
	for i := range ev.VMs {
		if ev.VMs[i].UUID == r.UUID {
			return ev, &ev.VMs[i], nil
		}
	}
	return nil, nil, fail(exitWrongState, "the newest evidence holds nothing of '%s'", clean(arg))
}
