package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"libvirt.org/go/libvirt"

	"virt-attest/verifier/appraise"
	"virt-attest/verifier/host/metadata"
	"virt-attest/verifier/policy"
)

const (
	domLook    = 200 * time.Millisecond // between two looks at a domain's metadata
	domTimeout = 30 * time.Second
)

func (a *app) domattestCmd() *cobra.Command {
	var scheme string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "domattest DOMAIN", Short: "Ask for an attestation through a domain's metadata",
		Long: "Does what virsh metadata DOMAIN --set '<attest:request/>' does, and waits for the answer: hostd of the domain's host\n" +
			"has it attested. Nothing but libvirt is needed. What is shown is not checked here.",
		Args: exactArgs(1, "a domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"", "sepa", "hypa"}, scheme) {
				return fail(exitUsage, "unknown scheme %q (sepa, hypa)", clean(scheme))
			}
			return a.withDomain(args[0], false, func(d *libvirt.Domain) error { return a.domattest(cmd.Context(), d, scheme, timeout) })
		},
	}
	cmd.ValidArgsFunction = a.completeDomains
	cmd.Flags().StringVar(&scheme, "scheme", "", "sepa or hypa (default: the Verifier's)")
	cmd.Flags().DurationVar(&timeout, "timeout", domTimeout, "how long to wait")
	_ = cmd.RegisterFlagCompletionFunc("scheme", words("sepa", "hypa"))
	return cmd
}

func (a *app) domtrustCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "domtrust DOMAIN", Short: "Show the verdict in a domain's metadata",
		Long: "Shows what virsh metadata DOMAIN shows of the newest verdict. It is not checked here: the signature is for that.",
		Args: exactArgs(1, "a domain"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withDomain(args[0], true, func(d *libvirt.Domain) error {
				text, err := readNote(d, libvirt.DOMAIN_AFFECT_LIVE)
				if err != nil {
					return err
				}
				shown, ok := metadata.ReadDisplay(text)
				if !ok {
					return fail(exitWrongState, "no verdict is shown for this domain: does virt-attest-hostd run, and is the domain enabled?")
				}
				return a.display(shown)
			})
		},
	}
	cmd.ValidArgsFunction = a.completeDomains
	return cmd
}

func (a *app) domPolicyCmd() *cobra.Command {
	var scheme, interval, action, rims string
	var config, none bool
	cmd := &cobra.Command{
		Use: "domattest-policy DOMAIN", Short: "Ask for more than the policies through a domain's metadata",
		Long: "Shows or sets what a domain's metadata asks for beyond what the Verifier's policies say: more frequent attestations, a\n" +
			"harder action, reference values that have to be among those of a verdict. Less can not be asked for.",
		Args: exactArgs(1, "a domain"),
		RunE: func(_ *cobra.Command, args []string) error {
			element := "<policy"
			for _, f := range [][2]string{{"scheme", scheme}, {"interval", interval}, {"action", action}, {"rim", rims}} {
				if f[1] != "" && strings.ContainsAny(f[1], `<>&"'`) {
					return fail(exitUsage, "%s: unexpected %q", f[0], clean(f[1]))
				} else if f[1] != "" {
					element += " " + f[0] + `="` + f[1] + `"`
				}
			}
			element += "/>"
			if _, err := metadata.Parse(element); err != nil {
				return fail(exitUsage, "%v", err)
			}
			which := libvirt.DOMAIN_AFFECT_LIVE
			if config {
				which = libvirt.DOMAIN_AFFECT_CONFIG
			}
			set := none || element != "<policy/>"
			return a.withDomain(args[0], !set, func(d *libvirt.Domain) error {
				if set {
					return writeNote(d, element, which)
				}
				return a.showPolicy(d, which)
			})
		},
	}
	cmd.ValidArgsFunction = a.completeDomains
	f := cmd.Flags()
	f.StringVar(&scheme, "scheme", "", "sepa or hypa, for attestations by --interval")
	f.StringVar(&interval, "interval", "", "the longest `TIME` between two attestations, from 10s")
	f.StringVar(&action, "action", "", strings.Join(policy.Actions(), ", "))
	f.StringVar(&rims, "rim", "", "names of reference values, with commas")
	f.BoolVar(&config, "config", false, "of the domain's definition, for its next start")
	f.BoolVar(&none, "clear", false, "ask for nothing")
	for name, list := range map[string][]string{"scheme": {"sepa", "hypa"}, "action": policy.Actions()} {
		_ = cmd.RegisterFlagCompletionFunc(name, words(list...))
	}
	return cmd
}

func (a *app) withDomain(arg string, readOnly bool, f func(*libvirt.Domain) error) error {
	c, err := a.connect(readOnly)
	if err != nil {
		return err
	}
	defer func() { _, _ = c.Close() }()
	d, err := lookup(c, arg)
	if err != nil {
		return err
	}
	defer func() { _ = d.Free() }()
	return f(d)
}

func readNote(d *libvirt.Domain, which libvirt.DomainModificationImpact) (string, error) {
	text, err := d.GetMetadata(libvirt.DOMAIN_METADATA_ELEMENT, metadata.Namespace, which)
	var e libvirt.Error
	switch {
	case errors.As(err, &e) && e.Code == libvirt.ERR_NO_DOMAIN_METADATA:
		return "", nil
	case err != nil:
		return "", fail(exitWrongState, "%s", plain(err))
	}
	return text, nil
}

func writeNote(d *libvirt.Domain, text string, which libvirt.DomainModificationImpact) error {
	if err := d.SetMetadata(libvirt.DOMAIN_METADATA_ELEMENT, text, metadata.Key, metadata.Namespace, which); err != nil {
		return fail(exitWrongState, "%s", plain(err))
	}
	return nil
}

// domattest writes a request and waits until something else stands in its place.
func (a *app) domattest(ctx context.Context, d *libvirt.Domain, scheme string, timeout time.Duration) error {
	request := "<request/>"
	if scheme != "" {
		request = `<request scheme="` + scheme + `"/>`
	}
	if err := writeNote(d, request, libvirt.DOMAIN_AFFECT_LIVE); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return fail(exitWrongState, "no answer within %v: does virt-attest-hostd run, with metadata = true?", timeout)
		case <-time.After(domLook):
		}
		text, err := readNote(d, libvirt.DOMAIN_AFFECT_LIVE)
		if err != nil {
			return err
		}
		if shown, ok := metadata.ReadDisplay(text); ok {
			return a.display(shown)
		}
	}
}

// display prints what is shown; the exit status is that of the state.
func (a *app) display(s metadata.Display) error {
	if done, err := a.structured(s); err != nil || done {
		return errors.Join(err, displayed(s))
	}
	rows := [][]string{{"State", clean(string(s.State))}, {"Scheme", clean(s.Scheme)}, {"Time", clean(s.Time)}, {"Expires", clean(s.Expires)}, {"Reference values", clean(s.RIM)}, {"Report", clean(s.Report)}}
	for _, r := range rows {
		if r[1] != "" {
			a.printf("%-18s %s\n", r[0]+":", r[1])
		}
	}
	for _, w := range s.Reasons {
		a.printf("  %s: %s\n", clean(w.Code), clean(w.Text))
	}
	if s.Unmet != "" {
		a.printf("  unmet: the verdict was made without reference values that the domain's metadata names\n")
	}
	if s.Error != "" {
		a.remark("virt-attest: %s", clean(s.Error))
	}
	return displayed(s)
}

func displayed(s metadata.Display) error {
	if s.State == appraise.Trusted && s.Unmet != "" {
		return &exitError{exitNotTrusted, errVerdict}
	}
	return verdict([]appraise.State{s.State})
}

func (a *app) showPolicy(d *libvirt.Domain, which libvirt.DomainModificationImpact) error {
	text, err := readNote(d, which)
	if err != nil {
		return err
	}
	e, err := metadata.Parse(text)
	if text == "" || err == nil && e.Policy == nil {
		a.remark("virt-attest: the domain's metadata asks for nothing")
		return nil
	}
	if err != nil {
		return fail(exitWrongState, "%v", err)
	}
	a.printf("%s\n", metadata.FormatPolicy(*e.Policy))
	return nil
}
