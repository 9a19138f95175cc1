package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/appraise"
)

func (a *app) logCmd() *cobra.Command {
	var ima, bad, host, raw bool
	cmd := &cobra.Command{
		Use: "log DOMAIN --ima", Short: "Show a machine's IMA measurement log as the Verifier holds it",
		Args: exactArgs(1, "one domain (or, with --host, one host)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !ima {
				return fail(exitUsage, "say which log: --ima")
			}
			return a.imaLog(cmd.Context(), args[0], host, bad, raw)
		},
	}
	cmd.Flags().BoolVar(&ima, "ima", false, "the IMA measurement list")
	cmd.Flags().BoolVar(&bad, "bad", false, "only entries that a reason names")
	cmd.Flags().BoolVar(&raw, "raw", false, "the kernel's binary list, for other tools")
	cmd.Flags().BoolVar(&host, "host", false, "the argument is a host's name or ID")
	cmd.ValidArgsFunction = a.completeDomains
	return cmd
}

// logLine is one entry of log --json.
type logLine struct {
	Entry  uint64        `json:"entry"`
	Digest string        `json:"digest"`
	Path   string        `json:"path"`
	Reason appraise.Code `json:"reason,omitempty"`
}

func (a *app) imaLog(ctx context.Context, arg string, host, bad, raw bool) error {
	r, err := a.machine(ctx, arg, host)
	if err != nil {
		return err
	}
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	data, err := client.MachineIMA(ctx, machineID(r))
	if err != nil {
		return asked(err)
	}
	if raw {
		_, err := a.out.Write(data)
		return err
	}
	lines, err := logLines(data, r.Reasons, bad)
	if err != nil {
		return err
	}
	if a.output == "json" {
		return a.printJSON(lines)
	}
	rows := make([][]string, 0, len(lines))
	for _, l := range lines {
		rows = append(rows, []string{strconv.FormatUint(l.Entry, 10), l.Digest, l.Path, string(l.Reason)})
	}
	a.table([]string{"Entry", "Digest", "Path", "Finding"}, rows)
	return nil
}

func logLines(data []byte, reasons []appraise.Reason, bad bool) ([]logLine, error) {
	findings := map[uint64]appraise.Code{}
	for _, why := range reasons {
		if why.Entry != nil {
			findings[*why.Entry] = why.Code
		}
	}
	count, err := countEntries(data)
	if err != nil {
		return nil, fmt.Errorf("the Verifier's copy of the log cannot be read: %w", err)
	}
	lines := []logLine{}
	seg := attest.LogSegment{TemplateHash: attest.SHA1, Count: count, Data: data}
	for e := range measurement.Entries(seg) {
		if code, found := findings[e.Index]; found || !bad {
			lines = append(lines, logLine{e.Index, e.DigestText(), e.PathText(), code})
		}
	}
	return lines, nil
}

func countEntries(data []byte) (count uint64, err error) {
	for len(data) > 0 {
		n, err := measurement.NextEntry(data, attest.SHA1.Size())
		if err != nil {
			return 0, err
		}
		data, count = data[n:], count+1
	}
	return count, nil
}
