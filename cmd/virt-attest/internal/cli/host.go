package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func (a *app) hostCmd() *cobra.Command {
	return noun("host", "Hosts and their enrolment", a.hostListCmd(), a.hostInfoCmd(), a.hostAttestCmd(), a.hostApproveCmd(), a.hostUnenrollCmd(),
		a.enrolTokenCmd(), a.hostValidateCmd(), a.hostSetupCmd())
}

// hostVerb makes a command on one host.
func (a *app) hostVerb(use, short string, run func(ctx context.Context, client *api.Client, h *api.Host) error) *cobra.Command {
	cmd := a.verb(use, short, exactArgs(1, "one host"), func(ctx context.Context, client *api.Client, args []string) error {
		h, err := a.findHost(ctx, client, args[0])
		if err != nil {
			return err
		}
		return run(ctx, client, h)
	})
	cmd.ValidArgsFunction = a.complete(false, hostNames)
	return cmd
}

var hostColumns = []column[api.Host]{
	{"Name", false, func(h api.Host) string { return h.Name }},
	{"ID", false, func(h api.Host) string { return h.ID }},
	{"State", false, func(h api.Host) string { return string(h.Result.State) }},
	{"Enrolled by", false, enrolledBy},
	{"Online", false, func(h api.Host) string { return yesNo(h.Online) }},
	{"Attested", false, func(h api.Host) string { return since(h.Result.Time) }},
	{"Last seen", true, func(h api.Host) string { return since(h.LastSeen) }},
	{"Reason", true, func(h api.Host) string { return dash(string(decisive(h.Result))) }},
	{"Reference values", true, func(h api.Host) string { return dash(h.Result.RIM) }},
	{"EK SHA-256", true, func(h api.Host) string { return h.EKSHA256 }},
}

func enrolledBy(h api.Host) string {
	if !h.Approved {
		return "not approved"
	}
	return h.How
}

func (a *app) hostListCmd() *cobra.Command {
	var f listFlags
	cmd := a.verb("list", "List the hosts that the Verifier knows", noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		filter, _, err := f.filter()
		if err != nil {
			return err
		}
		hosts, err := pages(ctx, a, "hosts", hostsOf(client, filter))
		if err != nil {
			return err
		}
		return showList(a, hosts, func(h api.Host) string { return h.Name }, hostColumns)
	})
	cmd.Flags().StringSliceVar(&f.states, "state", nil, "hosts in this `STATE` (may be repeated)")
	cmd.Flags().BoolVar(&f.untrusted, "untrusted", false, "hosts in any state but TRUSTED")
	cmd.Flags().StringVar(&f.text, "match", "", "hosts with this `TEXT` in their name, or at the beginning of their ID")
	cmd.MarkFlagsMutuallyExclusive("state", "untrusted")
	_ = cmd.RegisterFlagCompletionFunc("state", words(stateWords()...))
	return cmd
}

// hostInformation is host info in JSON.
type hostInformation struct {
	api.Host
	Settings *api.Settings `json:"settings"`
	VMs      api.Counts    `json:"vms"`
}

func (a *app) hostInfoCmd() *cobra.Command {
	return a.hostVerb("info HOST", "Show all that is known of a host, with every reason", func(ctx context.Context, client *api.Client, h *api.Host) error {
		settings, err := client.Settings(ctx, h.ID)
		if err != nil {
			return asked(err)
		}
		i := hostInformation{*h, settings, api.Counts{}}
		err = eachPage(ctx, a, "VMs", vmsOf(client, api.MachineFilter{Host: h.ID}), func(vms []api.VM) error {
			for _, v := range vms {
				i.VMs[v.Result.State]++
			}
			return nil
		})
		if err != nil {
			return err
		}
		return a.showHost(&i)
	})
}

func (a *app) showHost(i *hostInformation) error {
	if done, err := a.structured(i); err != nil {
		return err
	} else if done {
		return verdict([]appraise.State{i.Result.State})
	}
	line := func(name, value string) { a.printf("%-16s %s\n", name+":", clean(value)) }
	line("EK SHA-256", i.EKSHA256)
	line("Enrolled by", enrolledBy(i.Host))
	line("Online", yesNo(i.Online))
	line("Last seen", since(i.LastSeen))
	var counts []string
	for _, s := range appraise.States() {
		if n := i.VMs[s]; n > 0 {
			counts = append(counts, strconv.Itoa(n)+" "+string(s))
		}
	}
	line("VMs", dash(strings.Join(counts, ", ")))
	r := i.Result
	r.Name, r.Host = i.Name, i.ID
	return a.showInfo(&information{Result: r, Settings: i.Settings})
}

func (a *app) hostAttestCmd() *cobra.Command {
	var timeout time.Duration
	var vms bool
	cmd := a.hostVerb("attest HOST", "Attest a host now", func(ctx context.Context, client *api.Client, h *api.Host) error {
		req := api.AttestRequest{Host: h.ID, Scheme: attest.SchemeHost, Timeout: timeout.Seconds()}
		if vms {
			req.Scheme = attest.SchemeSEPA
		}
		reports, err := a.askAll(ctx, client, []api.AttestRequest{req})
		if err != nil {
			return err
		}
		return a.showReports(reports)
	})
	cmd.Flags().BoolVar(&vms, "vms", false, "and every VM on it")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the evidence")
	return cmd
}

func (a *app) hostApproveCmd() *cobra.Command {
	var digest string
	cmd := a.hostVerb("approve HOST --ek-sha256 HEX", "Accept a host's endorsement key",
		func(ctx context.Context, client *api.Client, h *api.Host) error {
			return a.hostApprove(ctx, client, h, digest)
		})
	cmd.Long = "Accepts a host whose pTPM has no certificate that the Verifier can check. Compare the digest with the one that the host\n" +
		"itself shows (virt-attest-hostd -identity), over a way that you trust; without it, the digest on record is shown and nothing is done."
	cmd.Flags().StringVar(&digest, "ek-sha256", "", "SHA-256 of the endorsement key's public area, as the host shows it")
	return cmd
}

func (a *app) hostApprove(ctx context.Context, client *api.Client, h *api.Host, digest string) error {
	if digest == "" {
		return fail(exitInsecure, "host '%s' claims EK %s; give that digest with --ek-sha256 once you have compared it with the host's own", clean(h.Name), clean(h.EKSHA256))
	}
	if !strings.EqualFold(digest, h.EKSHA256) {
		return fail(exitNotTrusted, "host '%s' claims EK %s, which is not the one given", clean(h.Name), clean(h.EKSHA256))
	}
	if _, err := client.ApproveHost(ctx, h.ID, h.EKSHA256); err != nil {
		return asked(err)
	}
	a.printf("Host '%s' approved\n", clean(h.Name))
	return nil
}

func (a *app) hostUnenrollCmd() *cobra.Command {
	cmd := a.hostVerb("unenroll HOST", "Forget a host and its enrolment", func(ctx context.Context, client *api.Client, h *api.Host) error {
		if err := client.DeleteHost(ctx, h.ID); err != nil {
			return asked(err)
		}
		a.printf("Host '%s' removed\n", clean(h.Name))
		return nil
	})
	cmd.Aliases = []string{"remove"}
	return cmd
}
