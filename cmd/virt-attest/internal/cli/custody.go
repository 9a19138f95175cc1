package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/attest"
	"virt-attest/internal/custody"
	hostconfig "virt-attest/verifier/host/config"
)

func (a *app) custodyCmd() *cobra.Command {
	cmd := noun("custody", "Keep this host's vTPMs encrypted, under a key that its physical TPM holds", a.custodyKeyCmd(), a.custodyInitCmd(), a.custodyStatusCmd(),
		a.custodyEncryptCmd(), a.custodyDecryptCmd(), a.custodyResealCmd(), a.custodyRecoverCmd(), a.custodySetCmd())
	cmd.Long = "With custody a disk that is stolen yields no vTPM: the state of a VM's TPM can be opened on this machine only, and only while it\n" +
		"booted as it did when the key was sealed. These commands work on this host, as root, without a Verifier. See docs/custody.md."
	return cmd
}

// hostFlags say what is taken from hostd's configuration, and what of it is said anew.
type hostFlags struct{ config, pcrs, recovery string }

func (f *hostFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "host-config", hostconfig.DefaultPath, "hostd's configuration: where the TPM is, and [custody]")
	cmd.Flags().StringVar(&f.pcrs, "pcrs", "", "seal to these PCRs (default: pcrs of [custody], or sha256:7)")
}

// load gives [tpm] and [custody], with what the flags say.
func (f *hostFlags) load() (tpm custody.TPM, c hostconfig.Custody, err error) {
	conf, err := hostconfig.Load(f.config)
	if err != nil {
		return tpm, c, fail(exitConfig, "%v", err)
	}
	if f.pcrs != "" {
		if err := conf.Custody.PCRs.UnmarshalText([]byte(f.pcrs)); err != nil {
			return tpm, c, fail(exitUsage, "--pcrs: %v", err)
		}
	}
	if f.recovery != "" {
		conf.Custody.Recovery = f.recovery
	}
	return custody.TPM{Device: conf.TPM.Device, Socket: conf.TPM.Socket}, conf.Custody, nil
}

// rooted is a command that works on this host's vTPMs.
func (a *app) rooted(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, c *custody.Custody, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, ValidArgsFunction: nothing, RunE: func(cmd *cobra.Command, args []string) error {
		if os.Geteuid() != 0 {
			return fail(exitUsage, "custody is root's: it needs the TPM and the vTPMs' state")
		}
		return custodyError(run(cmd.Context(), custody.New(), args))
	}}
}

// custodyError gives an error its exit code.
func custodyError(err error) error {
	var known *exitError
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, custody.ErrNone), errors.Is(err, custody.ErrExists), errors.Is(err, custody.ErrNoRecovery), errors.Is(err, custody.ErrRunning):
		return fail(exitWrongState, "%s", inOneLine(err))
	case errors.Is(err, custody.ErrLocked), errors.Is(err, custody.ErrWrongKey):
		return fail(exitNotTrusted, "%s", inOneLine(err))
	}
	return fail(exitWrongState, "%s", inOneLine(err))
}

// inOneLine is an error without line breaks, for a terminal.
func inOneLine(err error) string {
	return clean(strings.ReplaceAll(strings.TrimPrefix(err.Error(), "custody: "), "\n", "; "))
}

func (a *app) custodyKeyCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "recovery-key FILE", Short: "Make a recovery key", Args: exactArgs(1, "one file, which is made"), RunE: func(_ *cobra.Command, args []string) error {
		id, recipient, err := custody.NewIdentity()
		if err != nil {
			return err
		}
		f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fail(exitUsage, "%v", err)
		}
		if _, err := f.Write(id); err != nil {
			return errors.Join(err, f.Close())
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		a.printf("%s\n", recipient)
		a.remark("That is its public part, for --recovery or host.toml. Keep %s away from the hosts: whoever has it and a host's disk has its vTPMs.", args[0])
		return nil
	}}
	cmd.Long = "Makes the key that opens a host's vTPMs when its TPM does not any more: after an update of firmware, or in another machine. Make it\n" +
		"elsewhere than on a host; one key serves any number of hosts. age-keygen(1) makes such keys as well."
	cmd.ValidArgsFunction = files
	return cmd
}

func (a *app) custodyInitCmd() *cobra.Command {
	var f hostFlags
	var o custody.Options
	var noRecovery bool
	var partner, identity string
	cmd := a.rooted("init", "Make this host's secret, and seal it to its TPM", noArgs, func(ctx context.Context, c *custody.Custody, _ []string) error {
		tpm, conf, err := f.load()
		if err != nil {
			return err
		}
		if (conf.Recovery == "") != noRecovery {
			return fail(exitUsage, "give the public recovery key with --recovery or in %s; without one (--no-recovery) every vTPM is lost with an update of firmware or a broken TPM", f.config)
		}
		if (partner == "") != (identity == "") {
			return fail(exitUsage, "--partner and --identity belong together")
		}
		o.TPM, o.PCRs, o.Recipient = tpm, conf.PCRs, conf.Recovery
		if partner != "" {
			if o.Partner, err = readSmall(partner); err == nil {
				o.Identity, err = readSmall(identity)
			}
			if err != nil {
				return err
			}
		}
		if err := c.Init(ctx, o); err != nil {
			return err
		}
		a.printf("Secret made and sealed to %s\n", pcrText(conf.PCRs))
		return nil
	})
	f.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.recovery, "recovery", "", "public recovery key, age1… (default: recovery of [custody])")
	fl.BoolVar(&noRecovery, "no-recovery", false, "there will be no recovery")
	fl.BoolVar(&o.NewVTPMs, "new-vtpms", false, "vTPMs that are made from now on are in custody")
	fl.StringVar(&partner, "partner", "", "host.json of a host with which this one exchanges VMs by live migration")
	fl.StringVar(&identity, "identity", "", "recovery key of that host, a file")
	return cmd
}

// readSmall reads a file that an operator names.
func readSmall(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err == nil && st.Size() > maxPEM {
		err = fmt.Errorf("%s: over %d bytes", path, maxPEM)
	}
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	return b, nil
}

// pcrText writes PCRs as --pcrs reads them.
func pcrText(list []attest.PCRSelection) string {
	var banks []string
	for _, s := range list {
		var n []string
		for _, p := range s.PCRs {
			n = append(n, strconv.Itoa(int(p)))
		}
		banks = append(banks, s.Alg.String()+":"+strings.Join(n, ","))
	}
	return strings.Join(banks, "+")
}
