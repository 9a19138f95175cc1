// Command stress looks for moments at which virt-attest makes virsh hang or a guest lose its TPM: `make
// stress`. It takes VMs of a lab host through random sequences of what an operator and a guest may do
// (start, reset, suspend, save, restore, destroy, power off) at random moments, above all while the
// firmware or QEMU is busy with the vTPM, with kill -9 of the sidecars in between and with reads of
// PCRs and EK through sidecar.sock at the same time.
//
// Each virsh command must end within 30 s. One that does not, an answer of virsh that the VM's state does
// not explain, and a TPM error that a guest sees are failures: what sidecar, swtpm and QEMU do at that moment
// is printed, and the program ends with status 1. The seed that it prints repeats the sequence, not the timing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

type options struct {
	how      time.Duration
	seed     uint64
	vms      int
	with     string
	keepOn   bool
	maxDelay time.Duration
}

func main() {
	o := options{}
	flag.DurationVar(&o.how, "for", 15*time.Minute, "how long")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the random sequences")
	flag.IntVar(&o.vms, "vms", 2, "VMs at a time")
	flag.StringVar(&o.with, "with", "", "directory with a virt-attest-sidecar and a virt-attest-hook other than bin/'s")
	flag.BoolVar(&o.keepOn, "k", false, "go on after a failure")
	flag.DurationVar(&o.maxDelay, "delay", 20*time.Second, "longest pause between two operations")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "stress: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	t := &tally{out: out, began: time.Now(), ops: map[string]int{}, slowest: map[string]time.Duration{}}
	t.say("seed %d, %d VMs, %v", o.seed, o.vms, o.how)
	ctx, cancel := context.WithTimeout(ctx, o.how)
	defer cancel()
	var wg sync.WaitGroup
	for i := range o.vms {
		v, err := w.newVM(ctx, i, rand.New(rand.NewPCG(o.seed, uint64(i))), t, o)
		if err != nil {
			return errors.Join(err, ctx.Err())
		}
		wg.Go(func() {
			if v.live(ctx); t.failed() && !o.keepOn {
				cancel()
			}
		})
	}
	wg.Wait()
	t.summary()
	if t.failed() {
		return errors.New("there were failures")
	}
	return nil
}
