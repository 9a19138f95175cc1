package sidecar

import (
	"context"
	"flag"
	"fmt"
	"io"

	"virt-attest/attest"
	"virt-attest/internal/journal"
	"virt-attest/sidecar/manufacture"
)

const usage = `usage: virt-attest-sidecar run [options] UUID
       virt-attest-sidecar manufacture [options] UUID

run serves the VM's TPM; virt-attest-sidecar@UUID.service starts it.
manufacture makes the VM's vTPM where there is none yet; it needs root.
`

// Command runs the program with its arguments and gives its exit status: 0, 1 for a failure, 2
// for a wrong use.
func Command(ctx context.Context, version string, args []string, stderr io.Writer) int {
	verbs := map[string]func(context.Context, *flag.FlagSet, string, []string) error{"run": runCommand, "manufacture": manufactureCommand}
	if len(args) == 0 || verbs[args[0]] == nil {
		fmt.Fprint(stderr, usage)
		return 2
	}
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	set.SetOutput(stderr)
	err := verbs[args[0]](ctx, set, version, args[1:])
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "virt-attest-sidecar: %v\n", err)
	return 1
}

func runCommand(ctx context.Context, set *flag.FlagSet, version string, args []string) error {
	c := Config{Version: version}
	set.StringVar(&c.RuntimeDir, "runtime", "", "directory of the sockets (default "+runtimeRoot+"/UUID)")
	set.StringVar(&c.SWTPM, "swtpm", "", "control socket of swtpm (default "+swtpmRoot+"/UUID/ctrl.sock)")
	set.StringVar(&c.StoreDir, "store", "", "hypervisor store (default "+storeRoot+")")
	set.StringVar(&c.QEMUUser, "qemu-user", "", "user that QEMU runs as (default libvirt-qemu or qemu)")
	set.StringVar(&c.QEMUGroup, "qemu-group", "", "group that may connect (default libvirt-qemu, qemu or kvm)")
	verbose := set.Bool("v", false, "tell more of what happens")
	var err error
	if c.UUID, err = parse(set, args); err != nil {
		return err
	}
	log := journal.New(set.Output(), *verbose).With("vm", c.UUID.String())
	return Run(ctx, c, log)
}

func manufactureCommand(ctx context.Context, set *flag.FlagSet, _ string, args []string) error {
	var c manufacture.Config
	set.StringVar(&c.StateDir, "state", "", "directory of all vTPMs (default /var/lib/virt-attest/vtpm)")
	set.StringVar(&c.CADir, "ca", "", "directory of the CA (default /var/lib/virt-attest/ca)")
	set.StringVar(&c.User, "user", "", "user that swtpm runs as (default virt-attest)")
	uuid, err := parse(set, args)
	if err != nil {
		return err
	}
	return manufacture.VTPM(ctx, c, uuid)
}

// parse reads options and the one UUID.
func parse(set *flag.FlagSet, args []string) (attest.UUID, error) {
	if err := set.Parse(args); err != nil {
		return attest.UUID{}, err
	}
	if set.NArg() != 1 {
		return attest.UUID{}, fmt.Errorf("%s: one UUID", set.Name())
	}
	return attest.ParseUUID(set.Arg(0))
}
