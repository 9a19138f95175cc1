// Command fleet puts a real virt-attest-verifierd under the load of many hosts: `make fleet`.
//
//	go run ./test/fleet -hosts 200 -vms 100 -rate 3333 -for 60s
//	go run ./test/fleet -store postgres -replicas 2 -rate 0       as fast as can be, on PostgreSQL
//
// Every host asks for a fresh challenge as hostd's schedule does, makes a live quote of its own and one of each
// VM with software TPM keys, and sends increments of logs whose history has the given length. Nothing
// in the Verifier knows that it is tested. At the end each machine's newest verdict is looked at: what is
// not TRUSTED by the last answer that was taken is counted as missed.
//
// The generator and, with -store postgres, the database run on the same processors as the Verifier; their
// processor time is told apart.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"virt-attest/verifier/api"
)

type options struct {
	bin      string
	store    string
	replicas int
	share    float64
	hosts    int
	vms      int
	rate     float64
	duration time.Duration
	history  int
	entries  int
	files    int
	workers  int
	dir      string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	o, err := parse(args)
	if err != nil {
		return 2
	}
	w, err := setUp(ctx, o)
	if err == nil {
		err = w.measure(ctx)
	}
	w.close()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		return 1
	}
	return 0
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("fleet", flag.ContinueOnError)
	f.StringVar(&o.bin, "bin", "bin/virt-attest-verifierd", "the Verifier's `program`")
	f.StringVar(&o.store, "store", "sqlite", "sqlite or postgres")
	f.IntVar(&o.replicas, "replicas", 1, "Verifiers on one database (postgres)")
	f.Float64Var(&o.share, "share", 1, "part of the time that each Verifier may run, as if its machine were so much slower")
	f.IntVar(&o.hosts, "hosts", 100, "hosts")
	f.IntVar(&o.vms, "vms", 100, "VMs of each host")
	f.Float64Var(&o.rate, "rate", 3333, "VM appraisals per second; 0: as many as can be")
	f.DurationVar(&o.duration, "for", time.Minute, "how long")
	f.IntVar(&o.history, "history", 800, "entries of each log at the beginning")
	f.IntVar(&o.entries, "entries", 3, "new entries of each log in each attestation")
	f.IntVar(&o.files, "files", 100000, "files in the reference values")
	f.IntVar(&o.workers, "workers", 8, "hosts that answer at the same time")
	f.StringVar(&o.dir, "dir", "", "`directory` for the Verifier's files; default: a new one, removed at the end")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 || o.hosts < 1 || o.vms < 1 || o.history < 1 || o.entries < 0 || o.files < 1 || o.workers < 1 || o.replicas < 1 || !(o.share > 0 && o.share <= 1) ||
		o.store != "sqlite" && o.store != "postgres" || o.store == "sqlite" && o.replicas > 1 {
		f.Usage()
		return o, errors.New("usage")
	}
	return o, nil
}

// world is a fleet and its Verifiers.
type world struct {
	o        options
	dir      string
	database *database
	replicas []*verifierd
	load     *load
	admin    *api.Client
}

func setUp(ctx context.Context, o options) (*world, error) {
	w := &world{o: o, dir: o.dir}
	if w.dir == "" {
		dir, err := os.MkdirTemp("", "va-fleet-")
		if err != nil {
			return w, err
		}
		w.dir = dir
	}
	lines, err := w.openStore(ctx)
	if err != nil {
		return w, err
	}
	for i := range o.replicas {
		v, err := start(ctx, o.bin, filepath.Join(w.dir, fmt.Sprintf("verifier-%d", i)), lines)
		w.replicas = append(w.replicas, v)
		if err != nil {
			return w, err
		}
	}
	if w.admin, err = w.replicas[0].client(); err != nil {
		return w, err
	}
	return w, w.populate(ctx)
}

// populate makes the fleet and enrols it.
func (w *world) populate(ctx context.Context) error {
	o, began := w.o, time.Now()
	w.load = &load{conf: o, last: make(map[string]string)}
	for _, v := range w.replicas {
		var set []*api.Client
		for range o.workers {
			c, err := v.client()
			if err != nil {
				return err
			}
			set = append(set, c)
		}
		w.load.clients = append(w.load.clients, set)
	}
	rounds := int(o.duration.Seconds()*max(o.rate, 20000))/(o.hosts*o.vms) + 4
	h := newHistory(o.history+rounds*o.entries, o.files)
	values, err := references(o.files, h)
	if err != nil {
		return err
	}
	if err := w.admin.PutRIM(ctx, "fleet", values); err != nil {
		return err
	}
	for i := range o.hosts {
		w.load.hosts = append(w.load.hosts, newHost(i, o.vms, h, uint64(o.history)))
	}
	if err := w.load.enrol(ctx, w.admin); err != nil {
		return err
	}
	fmt.Printf("%d hosts with %d VMs each enrolled in %v; logs of %d entries, reference values of %d files\n", o.hosts, o.vms,
		time.Since(began).Round(time.Second), o.history, o.files)
	return nil
}

// slow lets every Verifier run for its share of the time only, until it is told to stop.
func (w *world) slow(ctx context.Context) (free func()) {
	if w.o.share == 1 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i, v := range w.replicas {
		wg.Go(func() {
			time.Sleep(slice * time.Duration(i) / time.Duration(len(w.replicas))) // not all at the same moments
			v.limp(ctx, time.Duration(w.o.share*float64(slice)))
		})
	}
	return func() { cancel(); wg.Wait() }
}

const slice = 20 * time.Millisecond

func (w *world) close() {
	for _, v := range w.replicas {
		v.stop()
	}
	w.database.stop()
	if w.o.dir == "" && w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// measure runs the load and prints what came of it.
func (w *world) measure(ctx context.Context) error {
	s := newSampler(w)
	began := time.Now()
	free := w.slow(ctx)
	w.load.run(ctx)
	free()
	took := time.Since(began)
	s.stop()
	if err := ctx.Err(); err != nil {
		return err
	}
	missed, example, err := w.load.missed(ctx, w.admin)
	if err != nil {
		return err
	}
	vms := float64(w.load.pushes * w.o.vms)
	fmt.Printf("VM appraisals/s      %.0f (asked for: %.0f), on %d processors, %s, %d replicas of %.0f %%\n", vms/took.Seconds(), w.o.rate, runtime.NumCPU(), w.o.store, w.o.replicas, 100*w.o.share)
	fmt.Printf("answer to verdict    p50 %v, p95 %v, p99 %v\n", w.load.quantile(.5).Round(time.Millisecond), w.load.quantile(.95).Round(time.Millisecond), w.load.quantile(.99).Round(time.Millisecond))
	fmt.Printf("processor time/VM    Verifier %.0f us, database %.0f us, generator %.0f us\n", s.verifier.Seconds()*1e6/vms, s.database.Seconds()*1e6/vms, s.own.Seconds()*1e6/vms)
	fmt.Printf("Verifier's memory    %s\n", s.memory())
	fmt.Printf("missed               %d %s\n", missed, example)
	fmt.Printf("refused or lost      %d %v\n", len(w.load.failed), errors.Join(w.load.failed[:min(3, len(w.load.failed))]...))
	if missed > 0 || len(w.load.failed) > 0 {
		return errors.New("something was missed")
	}
	return nil
}
