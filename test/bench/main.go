// Command bench measures what virt-attest costs, each figure as a ratio to a yardstick of the same run,
// and prints it beside its target: `make bench`.
//
//	go run ./test/bench              everything
//	go run ./test/bench -only code   the benchmarks of the packages
//	go run ./test/bench -only start  what virt-attest adds to a VM's start, and a sidecar's memory
//	go run ./test/bench -only paper  the paper's evaluation: all VMs, one VM, the host; SEPA and HYPA
//
// The last two make hosts out of containers (test/lab) and need root. A target that is missed is said
// to be; only a measurement that fails is an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"virt-attest/test/lab"
)

const (
	exitFailed = 1
	exitCannot = 2 // wrong usage, or a machine that cannot run a lab
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

type options struct {
	only   string
	starts int
	vms    int
	asks   int
}

func (o options) wants(part string) bool { return o.only == "" || o.only == part }

func run(ctx context.Context, args []string) int {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.only, "only", "", "one `part`: code, start or paper")
	flags.IntVar(&o.starts, "starts", 15, "starts of each VM")
	flags.IntVar(&o.vms, "vms", 4, "VMs of the paper's evaluation")
	flags.IntVar(&o.asks, "asks", 15, "attestations of each kind")
	if flags.Parse(args) != nil || flags.NArg() > 0 || o.starts < 1 || o.vms < 1 || o.asks < 1 || !isPart(o.only) {
		flags.Usage()
		return exitCannot
	}
	err := measure(ctx, o, os.Stdout)
	switch {
	case errors.Is(err, lab.ErrCannot):
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return exitCannot
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: FAILED: %v\n", err)
		return exitFailed
	}
	return 0
}

func isPart(s string) bool { return s == "" || s == "code" || s == "start" || s == "paper" }

// measure runs the parts one after the other, so that none slows another down.
func measure(ctx context.Context, o options, out io.Writer) error {
	began := time.Now()
	fmt.Fprintf(out, "%s, %d processors, load %s\n", runtime.Version(), runtime.NumCPU(), load())
	var rows []row
	if o.wants("code") {
		r, err := codeRows(ctx, out)
		if err != nil {
			return err
		}
		rows = append(rows, r...)
	}
	if o.wants("start") || o.wants("paper") {
		r, err := labRows(ctx, o, out)
		if err != nil {
			return err
		}
		rows = append(rows, r...)
	}
	if len(rows) > 0 {
		fmt.Fprintf(out, "\n== Targets\n\n")
		printRows(out, rows)
	}
	fmt.Fprintf(out, "\n%s, load at the end %s\n", time.Since(began).Round(time.Second), load())
	return nil
}

// load tells how busy the machine is: figures of a busy one are high.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	words := strings.Fields(string(b))
	return words[0]
}

// labRows measures what needs real hosts and VMs.
func labRows(ctx context.Context, o options, out io.Writer) (rows []row, err error) {
	fmt.Fprintf(out, "\n== Hosts out of containers come up\n")
	w, err := newWorld(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if o.wants("start") {
		if rows, err = w.startRows(ctx, o.starts, out); err != nil {
			return nil, err
		}
	}
	if o.wants("paper") {
		err = w.paper(ctx, o.vms, o.asks, out)
	}
	return rows, err
}
