package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

func (a *app) rimCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rim", Short: "Reference values: what machines may be",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fail(exitUsage, "unknown command rim %q", args[0])
			}
			return cmd.Help()
		},
	}
	simple := func(use, short string, n int, what string, run func(context.Context, []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: exactArgs(n, what),
			RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) }}
	}
	cmd.AddCommand(a.rimCreateCmd(), a.rimAssignCmd(),
		simple("list", "List the Verifier's reference values", 0, "no argument", a.rimList),
		simple("dump NAME", "Print a reference value file", 1, "one name", a.rimDump),
		simple("define FILE", "Give the Verifier a reference value file, new or changed", 1, "one file", a.rimDefine),
		simple("undefine NAME", "Remove reference values from the Verifier", 1, "one name", a.rimUndefine),
		simple("diff A B", "Compare reference values, each a name or a file", 2, "two names or files", a.rimDiff))
	return cmd
}

type rimFlags struct {
	domain, host string
	exclude      []string
	violations   bool
	file         string
	pcrs         string
	force        bool
}

func (a *app) rimCreateCmd() *cobra.Command {
	var f rimFlags
	cmd := &cobra.Command{
		Use: "create NAME --from-domain DOMAIN | --from-host HOST", Short: "Make reference values of a machine in a known good state",
		Long: "Attested evidence of the machine becomes reference values: every file of its IMA log and its boot PCRs (0-9). Whatever ran on\n" +
			"it since it booted will be trusted, so do it right after a clean start. The evidence must be sound; only findings that\n" +
			"reference values can cure are accepted.",
		Args: exactArgs(1, "one name for the reference values"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.rimCreate(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.domain, "from-domain", "", "the golden VM")
	cmd.Flags().StringVar(&f.host, "from-host", "", "the golden host")
	cmd.Flags().StringArrayVar(&f.exclude, "exclude", nil, "anchored path `GLOB` that is neither listed nor compared (may be repeated)")
	cmd.Flags().BoolVar(&f.violations, "allow-violations", false, "accept files that were written while measured, where this machine has some")
	cmd.Flags().StringVar(&f.pcrs, "pcrs", "", "PCRs to list, such as 0-7,9 (default 0-9; of a VM all but 1, where firmware measures its UUID)")
	cmd.Flags().StringVar(&f.file, "file", "", "write the reference values to `FILE` instead of giving them to the Verifier")
	cmd.Flags().BoolVar(&f.force, "replace", false, "replace reference values of the same name")
	return cmd
}

// curable are the findings of a sound machine that only lacks reference values.
var curable = []appraise.Code{
	appraise.CodeNoReference, appraise.CodeIMAUnlisted, appraise.CodeIMADigest, appraise.CodePCRMismatch,
	appraise.CodeIMAViolation, appraise.CodeHostNotTrusted, appraise.CodeExpired,
}

func (a *app) rimCreate(ctx context.Context, name string, f rimFlags) error {
	if (f.domain == "") == (f.host == "") {
		return fail(exitUsage, "give one of --from-domain and --from-host")
	}
	if err := rim.CheckName(name); err != nil {
		return fail(exitUsage, "%v", err)
	}
	source := f.domain + f.host
	r, err := a.machine(ctx, source, f.host != "")
	if err != nil {
		return err
	}
	if r.Report == "" {
		return fail(exitWrongState, "%s was never attested; run virt-attest attest first", clean(source))
	}
	for _, why := range r.Reasons {
		if !slices.Contains(curable, why.Code) {
			return fail(exitNotTrusted, "the evidence of %s is not sound (%s: %s)", clean(source), why.Code, clean(why.Text))
		}
	}
	registers, err := f.registers()
	if err != nil {
		return err
	}
	seg, banks, err := a.golden(ctx, source, f.host != "")
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
	return a.keepRIM(ctx, file, sum, f)
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
func (a *app) golden(ctx context.Context, arg string, host bool) (attest.LogSegment, []attest.PCRBank, error) {
	ev, vm, err := a.machineEvidence(ctx, arg, host)
	if err != nil {
		return attest.LogSegment{}, nil, err
	}
	if vm == nil {
		return ev.Host.IMA, ev.Host.PCRs, nil
	}
	return vm.IMA, vm.PCRs, nil
}

func (a *app) keepRIM(ctx context.Context, file *rim.File, sum rim.Summary, f rimFlags) error {
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
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	if _, err := client.RIM(ctx, file.Name); err == nil && !f.force {
		return fail(exitUsage, "reference values '%s' exist already; --replace replaces them", file.Name)
	}
	if err := client.PutRIM(ctx, file.Name, b); err != nil {
		return asked(err)
	}
	a.printf("Reference values '%s' created: %d files\n", file.Name, sum.Files)
	return nil
}

func (a *app) rimAssignCmd() *cobra.Command {
	var host, none bool
	cmd := &cobra.Command{
		Use: "assign NAME... MACHINE", Short: "Assign reference values to a VM, or with --host to a host",
		Long: "Assigns reference values; several are a union. What was assigned before is replaced. --none takes all away.",
		Args: minArgs(1, "names of reference values and a machine"),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, machine := args[:len(args)-1], args[len(args)-1]
			if none != (len(names) == 0) {
				return fail(exitUsage, "names of reference values and a machine expected, or --none and a machine")
			}
			return a.rimAssign(cmd.Context(), names, machine, host)
		},
	}
	cmd.Flags().BoolVar(&host, "host", false, "the machine is a host, by name or ID")
	cmd.Flags().BoolVar(&none, "none", false, "take all reference values away")
	return cmd
}

func (a *app) rimAssign(ctx context.Context, names []string, machine string, host bool) error {
	r, err := a.machine(ctx, machine, host)
	if err != nil {
		return err
	}
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	if err := client.AssignRIMs(ctx, machineID(r), names); err != nil {
		return asked(err)
	}
	if len(names) == 0 {
		a.printf("'%s' has no reference values any more\n", clean(machine))
		return nil
	}
	a.printf("'%s' is compared with '%s' from now on\n", clean(machine), strings.Join(names, "', '"))
	return nil
}

func (a *app) rimList(ctx context.Context, _ []string) error {
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	rims, err := client.RIMs(ctx)
	if err != nil {
		return asked(err)
	}
	if a.output == "json" {
		return a.printJSON(rims)
	}
	rows := make([][]string, 0, len(rims))
	for _, r := range rims {
		rows = append(rows, []string{r.Name, strconv.Itoa(r.Files), since(r.Modified), strconv.Itoa(len(r.Assigned)), shortHash(r)})
	}
	a.table([]string{"Name", "Files", "Changed", "Machines", "SHA-256"}, rows)
	return nil
}

func shortHash(r api.RIMInfo) string { return r.SHA256[:min(16, len(r.SHA256))] }

func (a *app) rimDump(ctx context.Context, args []string) error {
	b, err := a.readRIM(ctx, args[0], true)
	if err != nil {
		return err
	}
	_, err = a.out.Write(b)
	return err
}

func (a *app) rimDefine(ctx context.Context, args []string) error {
	b, err := a.readRIM(ctx, args[0], false)
	if err != nil {
		return err
	}
	file, err := rim.Decode(b)
	if err != nil {
		return fail(exitConfig, "%s: %v", args[0], err)
	}
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	if err := client.PutRIM(ctx, file.Name, b); err != nil {
		return asked(err)
	}
	a.printf("Reference values '%s' defined: %d files\n", file.Name, len(file.IMA))
	return nil
}

func (a *app) rimUndefine(ctx context.Context, args []string) error {
	client, err := a.conf.client()
	if err != nil {
		return err
	}
	if err := client.DeleteRIM(ctx, args[0]); err != nil {
		return asked(err)
	}
	a.printf("Reference values '%s' undefined\n", clean(args[0]))
	return nil
}

func (a *app) rimDiff(ctx context.Context, args []string) error {
	var files [2]*rim.File
	for i, arg := range args {
		_, err := os.Stat(arg)
		b, err := a.readRIM(ctx, arg, err != nil)
		if err != nil {
			return err
		}
		if files[i], err = rim.Decode(b); err != nil {
			return fail(exitConfig, "%s: %v", arg, err)
		}
	}
	changes := rim.Diff(files[0], files[1])
	if a.output == "json" {
		return a.printJSON(changes)
	}
	for _, c := range changes {
		a.printf("%s\n", clean(c.String()))
	}
	return nil
}

// readRIM reads a file, or reference values by name from the Verifier.
func (a *app) readRIM(ctx context.Context, arg string, byName bool) ([]byte, error) {
	if !byName {
		st, err := os.Stat(arg)
		if err == nil && st.Size() > rim.MaxFile {
			err = fmt.Errorf("%s: larger than %d bytes", arg, rim.MaxFile)
		}
		if err != nil {
			return nil, fail(exitUsage, "%v", err)
		}
		b, err := os.ReadFile(arg)
		if err != nil {
			return nil, fail(exitUsage, "%v", err)
		}
		return b, nil
	}
	client, err := a.conf.client()
	if err != nil {
		return nil, err
	}
	b, err := client.RIM(ctx, arg)
	return b, asked(err)
}
