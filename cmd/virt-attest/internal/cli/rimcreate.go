package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

type rimFlags struct {
	domain, host string
	exclude      []string
	violations   bool
	file         string
	pcrs         string
	force        bool
	put          putFlags
}

func (a *app) rimCreateCmd() *cobra.Command {
	var f rimFlags
	cmd := a.verb("create NAME --from-domain DOMAIN | --from-host HOST", "Make reference values of a machine in a known good state",
		exactArgs(1, "one name for the reference values"),
		func(ctx context.Context, client *api.Client, args []string) error {
			return a.rimCreate(ctx, client, args[0], f)
		})
	cmd.Long = "Attested evidence of the machine becomes reference values: every file of its IMA log and its boot PCRs (0-9). Whatever ran on\n" +
		"it since it booted will be trusted, so do it right after a clean start. The evidence must be sound; only findings that\n" +
		"reference values can cure are accepted."
	cmd.Flags().StringVar(&f.domain, "from-domain", "", "the golden VM")
	cmd.Flags().StringVar(&f.host, "from-host", "", "the golden host")
	cmd.Flags().StringArrayVar(&f.exclude, "exclude", nil, "anchored path `GLOB` that is neither listed nor compared (may be repeated)")
	cmd.Flags().BoolVar(&f.violations, "allow-violations", false, "accept files that were written while measured, where this machine has some")
	cmd.Flags().StringVar(&f.pcrs, "pcrs", "", "PCRs to list, such as 0-7,9 (default 0-9; of a VM all but 1, where firmware measures its UUID)")
	cmd.Flags().StringVar(&f.file, "file", "", "write the reference values to `FILE` instead of giving them to the Verifier")
	cmd.Flags().BoolVar(&f.force, "replace", false, "replace reference values of the same name, by a new version")
	f.put.add(cmd)
	a.flagNames(cmd, "from-domain", a.domainNames)
	a.flagNames(cmd, "from-host", hostNames)
	return cmd
}

// curable are the findings of a sound machine that only lacks reference values.
var curable = []appraise.Code{
	appraise.CodeNoReference, appraise.CodeIMAUnlisted, appraise.CodeIMADigest, appraise.CodePCRMismatch,
	appraise.CodeIMAViolation, appraise.CodeHostNotTrusted, appraise.CodeExpired,
}

func (a *app) rimCreate(ctx context.Context, client *api.Client, name string, f rimFlags) error {
	if (f.domain == "") == (f.host == "") {
		return fail(exitUsage, "give one of --from-domain and --from-host")
	}
	if err := rim.CheckName(name); err != nil {
		return fail(exitUsage, "%v", err)
	}
	source := f.domain + f.host
	m, err := a.find(ctx, client, source, f.host != "")
	if err != nil {
		return err
	}
	if err := sound(m); err != nil {
		return err
	}
	registers, err := f.registers()
	if err != nil {
		return err
	}
	seg, banks, err := a.golden(ctx, client, m)
	if err != nil {
		return err
	}
	proof, err := measurement.Replay(seg, measurement.State{}, banks, measurement.Options{AllowPadded: true}) // whose weak banks the Verifier judges
	if err != nil {
		return fail(exitNotTrusted, "the IMA log of %s does not explain its PCR 10: %v", clean(source), err)
	}
	file, sum, err := rim.FromLog(rim.Golden{Name: name, From: source, Time: time.Now().UTC().Truncate(time.Second),
		Entries: proof.Entries(), PCRs: banks, Registers: registers, Exclude: f.exclude, AllowViolations: f.violations})
	if err != nil {
		return fail(exitUsage, "%v", err)
	}
	return a.keepRIM(ctx, client, file, sum, f)
}

// sound refuses a machine that has more against it than a lack of reference values.
func sound(m *machine) error {
	if m.result.Report == "" {
		return fail(exitWrongState, "%s was never attested; run virt-attest attest first", clean(m.name))
	}
	for _, why := range m.result.Reasons {
		if !slices.Contains(curable, why.Code) {
			return fail(exitNotTrusted, "the evidence of %s is not sound (%s: %s)", clean(m.name), why.Code, clean(why.Text))
		}
	}
	return nil
}

// registers are the PCRs to list.
func (f rimFlags) registers() ([]uint8, error) {
	list := f.pcrs
	if list == "" && f.host != "" {
		list = "0-9"
	} else if list == "" {
		list = "0,2-9"
	}
	out, err := parsePCRs(list)
	if err != nil {
		return nil, fail(exitUsage, "--pcrs %s: %v", list, err)
	}
	return out, nil
}

// parsePCRs reads "0-7,9": ascending, no repeats. PCR 10 is IMA's and never listed, those from 16 on can
// be reset by the machine.
func parsePCRs(list string) ([]uint8, error) {
	out, err := attest.ParsePCRs(list)
	switch {
	case err != nil:
		return nil, err
	case slices.Contains(out, 10):
		return nil, errors.New("PCR 10 belongs to IMA, whose log is compared instead")
	case slices.ContainsFunc(out, attest.PCRResettable):
		return nil, errors.New("PCRs from 16 on can be reset and prove nothing")
	}
	return out, nil
}

// golden gives the whole IMA log and the PCR values of a machine.
func (a *app) golden(ctx context.Context, client *api.Client, m *machine) (attest.LogSegment, []attest.PCRBank, error) {
	_, ev, vm, err := a.evidence(ctx, client, m)
	if err != nil {
		return attest.LogSegment{}, nil, err
	}
	if vm == nil {
		return ev.Host.IMA, ev.Host.PCRs, nil
	}
	return vm.IMA, vm.PCRs, nil
}

func (a *app) keepRIM(ctx context.Context, client *api.Client, file *rim.File, sum rim.Summary, f rimFlags) error {
	b, err := file.Encode()
	if err != nil {
		return err
	}
	for _, v := range sum.Violations {
		a.remark("virt-attest: %s was written while it was measured%s", clean(v),
			map[bool]string{true: "; accepted", false: "; such a machine will not be trusted (--allow-violations)"}[f.violations])
	}
	if f.file != "" {
		if err := os.WriteFile(f.file, b, 0o644); err != nil { //nolint:gosec // reference values are public
			return fail(exitUsage, "%v", err)
		}
		a.printf("Reference values '%s' written to %s: %d files\n", file.Name, f.file, sum.Files)
		return nil
	}
	_, err = client.DocVersions(ctx, api.DocRIM, file.Name)
	switch {
	case err == nil && !f.force:
		return fail(exitUsage, "reference values '%s' exist already; --replace replaces them", file.Name)
	case err != nil && !api.IsStatus(err, http.StatusNotFound):
		return asked(err)
	}
	return a.rimDocs().put(ctx, client, file.Name, fmt.Sprintf("%d files", sum.Files), "created", b, f.put)
}
