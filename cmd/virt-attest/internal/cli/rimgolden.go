package cli

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

// curable are the findings of a sound machine that only lacks reference values.
var curable = []appraise.Code{
	appraise.CodeNoReference, appraise.CodeIMAUnlisted, appraise.CodeIMADigest, appraise.CodePCRMismatch,
	appraise.CodeIMAViolation, appraise.CodeHostNotTrusted, appraise.CodeExpired,
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

// golden begins a description of a machine by its registers and excludes.
func (f rimFlags) golden(m *rimParts, from, registers string) (rim.Golden, error) {
	g := rim.Golden{Name: m.name, From: from, Time: m.time, Exclude: f.exclude, AllowViolations: f.violations}
	var err error
	if g.Registers, err = parsePCRs(cmp.Or(f.pcrs, registers)); err != nil {
		return g, fail(exitUsage, "--pcrs %s: %v", f.pcrs, err)
	}
	if f.events != "" {
		if g.Events, err = parsePCRs(f.events); err != nil {
			return g, fail(exitUsage, "--boot-events %s: %v", f.events, err)
		}
	}
	return g, nil
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

// fromMachine makes reference values of attested evidence.
func (a *app) fromMachine(ctx context.Context, client *api.Client, f rimFlags, made *rimParts) error {
	source := f.domain + f.host
	if source == "" {
		return nil
	}
	m, err := a.find(ctx, client, source, f.host != "")
	if err != nil {
		return err
	}
	if err := sound(m); err != nil {
		return err
	}
	registers := "0-9"
	if f.host == "" {
		registers = "0,2-9"
	}
	g, err := f.golden(made, source, registers)
	if err != nil {
		return err
	}
	_, ev, vm, err := a.evidence(ctx, client, m)
	if err != nil {
		return err
	}
	seg := ev.Host.IMA
	g.PCRs, g.BootLog = ev.Host.PCRs, ev.Host.BootLog
	if vm != nil {
		seg, g.PCRs, g.BootLog = vm.IMA, vm.PCRs, vm.BootLog
	}
	proof, err := measurement.Replay(seg, measurement.State{}, g.PCRs, measurement.Options{AllowPadded: true}) // whose weak banks the Verifier judges
	if err != nil {
		return fail(exitNotTrusted, "the IMA log of %s does not explain its PCR 10: %v", clean(source), err)
	}
	g.Entries = proof.Entries()
	return made.golden(g, source)
}

// golden adds what a log shows.
func (m *rimParts) golden(g rim.Golden, from string) error {
	file, sum, err := rim.FromLog(g)
	if err != nil {
		return fail(exitUsage, "%s: %v", clean(from), err)
	}
	m.part(file, from, sum)
	return nil
}

// fromLogs makes reference values of logs in files, which nothing proves but the word of who names them.
func (a *app) fromLogs(_ context.Context, _ *api.Client, f rimFlags, made *rimParts) error {
	none := func(func(*measurement.Entry) bool) {}
	for _, name := range f.sources.imaLogs {
		b, err := readBounded(name, attest.MaxIMAData)
		if err != nil {
			return err
		}
		if err := wholeList(b); err != nil {
			return fail(exitConfig, "%s is no binary IMA log (as in /sys/kernel/security/ima/binary_runtime_measurements): %v", clean(name), err)
		}
		g, err := f.golden(made, name, "0-9")
		if err != nil {
			return err
		}
		g.Events, g.Entries = nil, measurement.Entries(attest.LogSegment{TemplateHash: attest.SHA1, Data: b})
		if err := made.golden(g, name); err != nil {
			return err
		}
	}
	for _, name := range f.sources.bootLogs {
		b, err := readBounded(name, attest.MaxBootLog)
		if err != nil {
			return err
		}
		log, err := eventlog.Parse(b)
		if err != nil {
			return fail(exitConfig, "%s is no TCG event log (as in /sys/kernel/security/tpm0/binary_bios_measurements): %v", clean(name), err)
		}
		g, err := f.golden(made, name, "0,2-9")
		if err != nil {
			return err
		}
		g.PCRs, g.BootLog, g.Entries, g.Exclude = log.PCRs(), b, none, nil
		if err := made.golden(g, name); err != nil {
			return err
		}
	}
	return nil
}

// wholeList reports whether all of b is entries of the kernel's default list.
func wholeList(b []byte) error {
	for len(b) > 0 {
		n, err := measurement.NextEntry(b, attest.SHA1.Size())
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
