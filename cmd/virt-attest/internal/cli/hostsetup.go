package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
	"virt-attest/cmd/virt-attest/internal/hostsetup"
)

// setupFlags are those of host setup.
type setupFlags struct {
	hostsetup.Options
	tokenFrom string
	undo      bool
}

func (a *app) hostSetupCmd() *cobra.Command {
	var f setupFlags
	cmd := &cobra.Command{
		Use: "setup", Short: "Make this host one that can attest its VMs",
		Long: "Does what is missing for attestation on this host, as root: users, directories, the libvirt hook, rules for AppArmor, the configuration,\n" +
			"certificates and virt-attest-hostd; and says how the Verifier, which -V names, gets to know the host. Each step is told, and done once.\n" +
			"What somebody has written is never changed. virt-attest host-validate looks at everything.",
		Args: noArgs, ValidArgsFunction: nothing, Annotations: map[string]string{withoutConfig: ""},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.hostSetup(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.DryRun, "dry-run", false, "only tell what would be done")
	fs.BoolVar(&f.undo, "undo", false, "take it back; VMs' state, users and certificates stay")
	fs.StringVar(&f.CA, "ca", "", "`FILE` with the CA's certificate, to be put in its place")
	fs.StringVar(&f.Cert, "cert", "", "`FILE` with this host's certificate, likewise")
	fs.StringVar(&f.Key, "key", "", "`FILE` with its key, likewise")
	fs.StringVar(&f.tokenFrom, "token", "", "`FILE` with an enrolment token, - for standard input")
	for _, other := range []string{"ca", "cert", "key", "token"} {
		cmd.MarkFlagsMutuallyExclusive("undo", other)
	}
	return cmd
}

func (a *app) hostSetup(ctx context.Context, f setupFlags) error {
	if os.Geteuid() != 0 && !f.DryRun {
		return fail(exitUsage, "setting a host up needs root; --dry-run tells what would be done")
	}
	f.Verifier = a.verifier
	var err error
	if f.Token, err = a.enrolToken(f.tokenFrom); err != nil {
		return err
	}
	var steps []hostsetup.Step
	s := &hostsetup.Setup{Host: a.thisHost(func(hostcheck.Finding) {}), Options: f.Options, Tell: func(st hostsetup.Step) {
		steps = append(steps, st)
		a.tellStep(st)
	}}
	if f.undo {
		err = s.Undo(ctx)
	} else {
		err = s.Run(ctx)
	}
	if errors.Is(err, hostsetup.ErrEnabled) {
		return fail(exitWrongState, "%v", err)
	}
	if err != nil {
		return err
	}
	if done, err := a.structured(steps); err != nil || done {
		return errors.Join(err, setupResult(steps))
	}
	if !f.undo {
		a.remark("virt-attest host-validate looks at everything; virt-attest enable DOMAIN has a VM take part.")
	}
	return setupResult(steps)
}

// setupResult is the exit status: 1 where a step failed.
func setupResult(steps []hostsetup.Step) error {
	for _, s := range steps {
		if s.Word == hostsetup.Failed {
			return &exitError{exitNotTrusted, errVerdict}
		}
	}
	return nil
}

// tellStep prints a step as it was made.
func (a *app) tellStep(s hostsetup.Step) {
	if a.output != "table" && a.output != "wide" || a.quiet && s.Word == hostsetup.There {
		return
	}
	a.printf("%7s  %s", s.Word, clean(s.What))
	for i, line := range strings.Split(s.Text, "\n") {
		switch {
		case line == "":
		case i == 0:
			a.printf(": %s", clean(line))
		default:
			a.printf("\n         %s", clean(line))
		}
	}
	a.printf("\n")
}

// enrolToken reads a token; a token itself is never an argument, which others could read.
func (a *app) enrolToken(from string) (string, error) {
	if from == "" {
		return "", nil
	}
	in := a.in
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return "", fail(exitUsage, "%v", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxToken+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(b) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fail(exitUsage, "'%s' holds no token", clean(from))
	}
	return token, nil
}
