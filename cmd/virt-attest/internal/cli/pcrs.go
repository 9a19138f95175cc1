package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

func (a *app) pcrsCmd() *cobra.Command {
	var diff bool
	cmd := a.machineVerb("pcrs DOMAIN", "Show a machine's PCR values as last attested",
		func(ctx context.Context, client *api.Client, m *machine) error {
			pcrs, err := client.PCRs(ctx, m.id)
			if err != nil {
				return asked(err)
			}
			if diff {
				return a.pcrDiff(pcrs)
			}
			return showList(a, pcrs, pcrName, pcrColumns)
		})
	cmd.Flags().BoolVar(&diff, "diff", false, "only those that reference values want otherwise, with what they want")
	return cmd
}

func pcrName(p api.PCRState) string { return p.Alg.String() + ":" + strconv.Itoa(int(p.Index)) }

var pcrColumns = []column[api.PCRState]{
	{"Bank", false, func(p api.PCRState) string { return p.Alg.String() }},
	{"PCR", false, func(p api.PCRState) string { return strconv.Itoa(int(p.Index)) }},
	{"Use", true, func(p api.PCRState) string { return dash(p.Use) }},
	{"Compared", false, func(p api.PCRState) string { return p.Verdict }},
	{"Value", false, func(p api.PCRState) string { return p.Quoted.String() }},
	{"Expected", true, func(p api.PCRState) string { return dash(hexList(p.Expected)) }},
}

func hexList(l []attest.HexBytes) string {
	return strings.Join(pick(l, attest.HexBytes.String), " ")
}

// pcrDiff prints what is different, in the manner of diff.
func (a *app) pcrDiff(pcrs []api.PCRState) error {
	bad := []api.PCRState{}
	for _, p := range pcrs {
		if p.Verdict == "mismatch" || p.Verdict == "not-quoted" {
			bad = append(bad, p)
		}
	}
	if done, err := a.structured(bad); done {
		return err
	}
	if len(bad) == 0 {
		a.remark("Every PCR that is compared has a value that reference values allow")
	}
	for _, p := range bad {
		a.printf("%v PCR %d (%s): %s\n", p.Alg, p.Index, clean(dash(p.Use)), clean(p.Verdict))
		for _, e := range p.Expected {
			a.printf("- %s\n", e)
		}
		if len(p.Quoted) > 0 {
			a.printf("+ %s\n", p.Quoted)
		}
	}
	return nil
}
