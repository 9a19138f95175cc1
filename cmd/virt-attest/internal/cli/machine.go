package cli

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// machine is a VM or a host as the Verifier knows it.
type machine struct {
	id     string // as the API calls it: a VM's UUID or a host's ID
	name   string
	host   string // host ID
	isHost bool
	result appraise.Result
}

// machineVerb makes a command on one machine: a VM, or with --host a host.
func (a *app) machineVerb(use, short string, run func(ctx context.Context, client *api.Client, m *machine) error) *cobra.Command {
	var host bool
	cmd := a.verb(use, short, exactArgs(1, "one domain (or, with --host, one host)"), func(ctx context.Context, client *api.Client, args []string) error {
		m, err := a.find(ctx, client, args[0], host)
		if err != nil {
			return err
		}
		return run(ctx, client, m)
	})
	cmd.Flags().BoolVar(&host, "host", false, "the argument is a host's name or ID")
	cmd.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if host {
			return a.complete(false, hostNames)(c, args, word)
		}
		return a.complete(false, a.domainNames)(c, args, word)
	}
	return cmd
}

// find finds a VM by ID, name or UUID, or a host by name or ID.
func (a *app) find(ctx context.Context, client *api.Client, arg string, host bool) (*machine, error) {
	if host {
		h, err := a.findHost(ctx, client, arg)
		if err != nil {
			return nil, err
		}
		r := h.Result
		r.Name, r.Host = h.Name, h.ID
		return &machine{id: h.ID, name: h.Name, host: h.ID, isHost: true, result: r}, nil
	}
	if _, err := attest.ParseUUID(arg); err != nil {
		arg = a.resolveAll([]string{arg})[0]
	}
	v, err := client.VM(ctx, arg)
	switch {
	case api.IsStatus(err, http.StatusNotFound):
		return nil, fail(exitWrongState, "the Verifier does not know VM '%s' (was it enabled, started and attested?)", clean(arg))
	case err != nil:
		return nil, asked(err)
	}
	r := v.Result
	r.UUID, r.Name, r.Host = v.UUID, v.Name, v.Host
	return &machine{id: v.UUID.String(), name: v.Name, host: v.Host, result: r}, nil
}

func (a *app) findHost(ctx context.Context, client *api.Client, arg string) (*api.Host, error) {
	h, err := client.Host(ctx, arg)
	if api.IsStatus(err, http.StatusNotFound) {
		return nil, fail(exitWrongState, "the Verifier does not know host '%s'", clean(arg))
	}
	return h, asked(err)
}

// hostFlag is --host for a machine, to be typed again.
func (m *machine) hostFlag() string {
	if m.isHost {
		return " --host"
	}
	return ""
}

// evidence fetches a machine's newest Evidence, with its VM's part unless it is a host.
func (a *app) evidence(ctx context.Context, client *api.Client, m *machine) ([]byte, *attest.Evidence, *attest.VMEvidence, error) {
	b, err := client.MachineEvidence(ctx, m.id)
	if err != nil {
		return nil, nil, nil, asked(err)
	}
	ev, err := attest.DecodeEvidence(b)
	if err != nil {
		return nil, nil, nil, fail(exitBug, "the Verifier's newest evidence of '%s' cannot be read: %v", clean(m.name), err)
	}
	if m.isHost {
		return b, ev, nil, nil
	}
	for i := range ev.VMs {
		if ev.VMs[i].UUID.String() == m.id {
			return b, ev, &ev.VMs[i], nil
		}
	}
	return nil, nil, nil, fail(exitWrongState, "the newest evidence holds nothing of '%s'", clean(m.name))
}
