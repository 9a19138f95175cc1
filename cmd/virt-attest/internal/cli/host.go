package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func (a *app) hostCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "host", Short: "Hosts and their enrolment",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fail(exitUsage, "unknown command host %q", args[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the hosts that the Verifier knows", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.hostList(cmd.Context()) }},
		a.hostApproveCmd(),
		&cobra.Command{Use: "remove HOST", Short: "Forget a host and its enrolment", Args: exactArgs(1, "one host"),
			RunE: func(cmd *cobra.Command, args []string) error { return a.hostRemove(cmd.Context(), args[0]) }},
	)
	return cmd
}

func (a *app) hostList(ctx context.Context) error {
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	hosts, err := client.Hosts(ctx)
	if err != nil {
		return asked(err)
	}
	if a.output == "json" {
		return a.printJSON(hosts)
	}
	var rows [][]string
	for _, h := range hosts {
		online, how := "no", h.How
		if h.Online {
			online = "yes"
		}
		if !h.Approved {
			how = "not approved"
		}
		rows = append(rows, []string{h.Name, h.ID, string(h.Result.State), how, online, since(h.Result.Time)})
	}
	a.table([]string{"Name", "ID", "State", "Enrolled by", "Online", "Attested"}, rows)
	return nil
}

func (a *app) hostApproveCmd() *cobra.Command {
	var digest string
	cmd := &cobra.Command{
		Use: "approve HOST --ek-sha256 HEX", Short: "Accept a host's endorsement key",
		Long: "Accepts a host whose pTPM has no certificate that the Verifier can check. Compare the digest with the one that the host\n" +
			"itself shows (virt-attest-hostd -identity), over a way that you trust; without it, the digest on record is shown and nothing is done.",
		Args: exactArgs(1, "one host"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.hostApprove(cmd.Context(), args[0], digest) },
	}
	cmd.Flags().StringVar(&digest, "ek-sha256", "", "SHA-256 of the endorsement key's public area, as the host shows it")
	return cmd
}

func (a *app) hostApprove(ctx context.Context, arg, digest string) error {
	client, h, err := a.host(ctx, arg)
	if err != nil {
		return err
	}
	if digest == "" {
		return fail(exitInsecure, "host '%s' claims EK %s; give that digest with --ek-sha256 once you have compared it with the host's own", clean(h.Name), h.EKSHA256)
	}
	if !strings.EqualFold(digest, h.EKSHA256) {
		return fail(exitNotTrusted, "host '%s' claims EK %s, which is not the one given", clean(h.Name), h.EKSHA256)
	}
	if _, err := client.ApproveHost(ctx, h.ID, h.EKSHA256); err != nil {
		return asked(err)
	}
	a.printf("Host '%s' approved\n", clean(h.Name))
	return nil
}

// host finds a host, and gives the client that found it.
func (a *app) host(ctx context.Context, arg string) (*api.Client, *api.Host, error) {
	client, err := a.conf.client()
	if err != nil {
		return nil, nil, err
	}
	h, err := findHost(ctx, client, arg)
	return client, h, err
}

func (a *app) hostRemove(ctx context.Context, arg string) error {
	client, h, err := a.host(ctx, arg)
	if err != nil {
		return err
	}
	if err := client.DeleteHost(ctx, h.ID); err != nil {
		return asked(err)
	}
	a.printf("Host '%s' removed\n", clean(h.Name))
	return nil
}
