package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"libvirt.org/go/libvirt"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
	hostconfig "virt-attest/verifier/host/config"
)

func (a *app) hostValidateCmd() *cobra.Command {
	deep := false
	cmd := &cobra.Command{
		Use: "validate", Short: "Look whether this host can attest its VMs, and say what to do where it cannot",
		Long: "Looks at this host, as root: libvirt and its hook, swtpm, the physical TPM, IMA, units, certificates, the way to the Verifier, and every VM\n" +
			"that takes part. Nothing is changed. virt-attest-host-validate(1) explains each check. Exit status: 1 where a check fails, 0 elsewhere.",
		Args: noArgs, ValidArgsFunction: nothing, Annotations: map[string]string{withoutConfig: ""},
		RunE: func(cmd *cobra.Command, _ []string) error {
			l := &checklist{app: a}
			h := a.thisHost(l.note)
			h.Deep = deep
			h.All(cmd.Context())
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return l.show()
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "also have the TPM make a key and a quote, and verify it")
	return cmd
}

// thisHost is the machine that this program runs on.
func (a *app) thisHost(report func(hostcheck.Finding)) *hostcheck.Host {
	return &hostcheck.Host{
		Root: "/", EUID: os.Geteuid(), Report: report, Run: runProgram,
		Config: func() (*hostconfig.Config, error) { return hostconfig.Load(hostconfig.DefaultPath) },
		Libvirt: func(uri string) (hostcheck.Libvirt, error) {
			open := libvirt.NewConnectReadOnly
			if os.Geteuid() == 0 {
				open = libvirt.NewConnect // what QEMU can do is not told to readers
			}
			c, err := open(uri)
			if err != nil {
				return nil, errors.New(plain(err))
			}
			return local{c}, nil
		},
	}
}

// runProgram gives the standard output of a program; what it says on standard error is the error.
func runProgram(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		said, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
		err = fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return string(out), err
}

// local is the libvirt of this host.
type local struct{ c *libvirt.Connect }

func (l local) Close() { _, _ = l.c.Close() }

func (l local) Version() (uint32, error) { return l.c.GetLibVersion() }

func (l local) Capabilities() (string, error) { return l.c.GetCapabilities() }

func (l local) DomainCapabilities() (string, error) {
	text, err := l.c.GetDomainCapabilities("", "", "", "", 0)
	if err != nil {
		return "", errors.New(plain(err))
	}
	return text, nil
}

func (l local) Domains() ([]hostcheck.Domain, error) {
	all, err := l.c.ListAllDomains(0)
	if err != nil {
		return nil, errors.New(plain(err))
	}
	var out []hostcheck.Domain
	for i := range all {
		name, err1 := all[i].GetName()
		doc, err2 := all[i].GetXMLDesc(0)
		active, err3 := all[i].IsActive()
		if err1 == nil && err2 == nil && err3 == nil { // others went away meanwhile
			out = append(out, hostcheck.Domain{Name: name, XML: doc, Running: active})
		}
		_ = all[i].Free()
	}
	return out, nil
}
