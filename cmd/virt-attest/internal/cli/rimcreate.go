package cli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/rim"
)

type rimFlags struct {
	domain, host string
	sources      rimSources
	exclude      []string
	violations   bool
	file         string
	pcrs, events string
	force        bool
	put          putFlags
}

func (a *app) rimCreateCmd() *cobra.Command {
	var f rimFlags
	cmd := a.verb("create NAME SOURCE...", "Make reference values of a machine in a known good state, or of what machines are installed from",
		exactArgs(1, "one name for the reference values"),
		func(ctx context.Context, client *api.Client, args []string) error {
			return a.rimCreate(ctx, client, args[0], f)
		})
	cmd.Long = "Attested evidence of a machine becomes reference values: every file of its IMA log and its boot PCRs (0-9). Whatever ran on\n" +
		"it since it booted will be trusted, so do it right after a clean start. The evidence must be sound; only findings that\n" +
		"reference values can cure are accepted.\n\n" +
		"Files also come from a root file system, disk images, Debian and RPM packages and an initramfs, and from logs that were saved. Sources can be\n" +
		"given several times and together: what any of them has is allowed. Nothing of them is executed or mounted. With --file no\n" +
		"Verifier is needed."
	cmd.Flags().StringVar(&f.domain, "from-domain", "", "the golden VM")
	cmd.Flags().StringVar(&f.host, "from-host", "", "the golden host")
	f.sources.add(cmd)
	cmd.Flags().StringArrayVar(&f.exclude, "exclude", nil, "anchored path `GLOB` that is neither listed nor compared (may be repeated)")
	cmd.Flags().BoolVar(&f.violations, "allow-violations", false, "accept files that were written while measured, where this machine has some")
	cmd.Flags().StringVar(&f.pcrs, "pcrs", "", "PCRs to list, such as 0-7,9 (default 0-9; of a VM and of --boot-log all but 1, where firmware measures a VM's UUID)")
	cmd.Flags().StringVar(&f.events, "boot-events", "", "PCRs of which to list the boot events and not the value, such as 1,5")
	cmd.Flags().StringVar(&f.file, "file", "", "write the reference values to `FILE` instead of giving them to the Verifier")
	cmd.Flags().BoolVar(&f.force, "replace", false, "replace reference values of the same name, by a new version")
	f.put.add(cmd)
	a.flagNames(cmd, "from-domain", a.domainNames)
	a.flagNames(cmd, "from-host", hostNames)
	a.flagNames(cmd, "base", docNames(api.DocRIM))
	return cmd
}

func (a *app) rimCreate(ctx context.Context, client *api.Client, name string, f rimFlags) error {
	switch {
	case f.domain != "" && f.host != "":
		return fail(exitUsage, "give one of --from-domain and --from-host")
	case f.domain+f.host == "" && f.sources.none():
		return fail(exitUsage, "say what to make them of: --from-domain, --from-host, --rootfs, --image, --dpkg, --rpm, --initramfs, --ima-log, --boot-log or --base")
	}
	if err := rim.CheckName(name); err != nil {
		return fail(exitUsage, "%v", err)
	}
	made := &rimParts{name: name, time: time.Now().UTC().Truncate(time.Second)}
	for _, from := range []func(context.Context, *api.Client, rimFlags, *rimParts) error{a.fromMachine, a.fromLogs, a.fromSources, a.fromBase} {
		if err := from(ctx, client, f, made); err != nil {
			return err
		}
	}
	file, err := made.file()
	if err != nil {
		return fail(exitUsage, "%v", err)
	}
	made.sum.Files = len(file.IMA)
	return a.keepRIM(ctx, client, file, made.sum, f)
}

// rimParts are the parts of reference values to be.
type rimParts struct {
	name  string
	time  time.Time
	from  []string // what the parts were made of
	parts []*rim.File
	bases []*rim.File // what is added as it is
	sum   rim.Summary
}

// part adds what was made of one source.
func (m *rimParts) part(f *rim.File, from string, sum rim.Summary) {
	m.parts, m.from = append(m.parts, f), append(m.from, from)
	m.sum.Excluded += sum.Excluded
	m.sum.Violations = append(m.sum.Violations, sum.Violations...)
}

// file is the union of the parts. About violations the bases alone have an opinion, where there are some.
func (m *rimParts) file() (*rim.File, error) {
	out := &rim.File{Format: rim.Format, Name: m.name, Created: m.time, CreatedFrom: strings.Join(m.from, ", "), Violations: rim.ViolationsFail}
	if len(out.CreatedFrom) > rim.MaxDescription {
		out.CreatedFrom = fmt.Sprintf("%d sources", len(m.from))
	}
	for _, b := range m.bases {
		if out.Description == "" {
			out.Description = b.Description
		}
	}
	if len(m.bases) > 0 && !slices.ContainsFunc(m.bases, func(b *rim.File) bool { return b.Violations != rim.ViolationsWarn }) {
		out.Violations = rim.ViolationsWarn
	}
	for _, p := range m.parts {
		p.Violations = out.Violations
	}
	all, err := rim.Merge(slices.Concat([]*rim.File{out}, m.parts, m.bases)...)
	if err != nil {
		return nil, err
	}
	_, err = rim.NewIndex(all)
	return all, err
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
		if err := writeFileAs(f.file, b, 0o644); err != nil { // reference values are public
			return err
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
