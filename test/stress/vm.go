package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"virt-attest/test/guest"
	"virt-attest/test/lab"
)

// limit is how long a virsh command may take. libvirt itself waits 30 s for another's job.
const limit = 30 * time.Second

// vm is one VM and what is done to it.
type vm struct {
	host   *lab.Host
	opts   guest.Options
	rand   *rand.Rand // of the loop that operates
	tally  *tally
	delay  time.Duration
	keepOn bool

	mu   sync.Mutex
	did  []string  // the last operations
	seen string    // transcript of the console that is open
	shot time.Time // when the sidecar was killed last
}

func (w *world) newVM(ctx context.Context, i int, r *rand.Rand, t *tally, o options) (*vm, error) {
	name := fmt.Sprintf("vm%d", i+1)
	v := &vm{host: w.host, rand: r, tally: t, delay: o.maxDelay, keepOn: o.keepOn, opts: guest.Options{
		Name: name, UUID: fmt.Sprintf("7d1e5c3a-6a0f-4d3e-8b55-0c2b9a7e%04x", i+1), Console: "/run/console-" + name + ".sock", Attested: true,
	}}
	xml, err := w.image.At(lab.ImageDir).DomainXML(v.opts)
	if err != nil {
		return nil, err
	}
	return v, w.host.AddVM(ctx, xml, w.image.Kernel, w.image.Initrd, w.image.Root)
}

// live operates the VM until ctx ends or something fails.
func (v *vm) live(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	seed := v.rand.Uint64()
	wg.Go(func() { v.read(ctx, seed) })
	wg.Go(func() { v.kill(ctx, rand.New(rand.NewPCG(seed, 1))) })
	wg.Go(func() { v.use(ctx, rand.New(rand.NewPCG(seed, 3))) })
	defer wg.Wait()
	defer cancel()
	for ctx.Err() == nil && (v.keepOn || !v.tally.failed()) {
		v.step(ctx)
		pause(ctx, v.moment())
	}
}

// moment is a pause: most are short, so that firmware, INIT and state blobs are hit.
func (v *vm) moment() time.Duration {
	switch n := v.rand.IntN(10); {
	case n < 4:
		return time.Duration(v.rand.Int64N(int64(100 * time.Millisecond)))
	case n < 8:
		return time.Duration(v.rand.Int64N(int64(3 * time.Second)))
	}
	return time.Duration(v.rand.Int64N(int64(v.delay)))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// file is where `virsh save` puts the VM.
func (v *vm) file() string { return "/var/tmp/" + v.opts.Name + ".save" }

// step does one random thing that the VM's state allows.
func (v *vm) step(ctx context.Context) {
	state := strings.TrimSpace(v.virsh(ctx, "domstate", v.opts.Name))
	one := func(ops ...[]string) { v.virsh(ctx, ops[v.rand.IntN(len(ops))]...) }
	n := v.opts.Name
	switch state {
	case "shut off", "crashed":
		if v.saved(ctx) {
			v.virsh(ctx, "restore", v.file())
			_, _, _ = v.host.Run(ctx, "rm", "-f", v.file())
			return
		}
		v.virsh(ctx, "start", n)
	case "running":
		one([]string{"reset", n}, []string{"reset", n}, []string{"reboot", n}, []string{"suspend", n}, []string{"managedsave", n},
			[]string{"managedsave", n, "--running"}, []string{"managedsave", n, "--paused"}, []string{"save", n, v.file()},
			[]string{"destroy", n}, []string{"shutdown", n})
	case "paused":
		one([]string{"resume", n}, []string{"resume", n}, []string{"reset", n}, []string{"managedsave", n}, []string{"destroy", n})
	case "":
	default:
		v.virsh(ctx, "destroy", n)
	}
}

func (v *vm) saved(ctx context.Context) bool {
	_, _, code := v.host.Run(ctx, "test", "-s", v.file())
	return code == 0
}

// virsh runs one command within the limit.
func (v *vm) virsh(ctx context.Context, args ...string) string {
	if ctx.Err() != nil {
		return ""
	}
	v.note(strings.Join(args, " "))
	began := time.Now()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	out, errs, code := v.host.Run(bounded, append([]string{"virsh", "-q"}, args...)...)
	took := time.Since(began)
	op := args[0]
	if code != 0 {
		op += " (refused)"
	}
	v.tally.count(op, took)
	v.note(fmt.Sprintf("… %s: %d after %v", args[0], code, took.Round(time.Millisecond)))
	switch {
	case bounded.Err() != nil:
		v.failure(fmt.Sprintf("virsh %s does not end within %v", strings.Join(args, " "), limit))
	case code != 0 && strings.Contains(errs, "its vTPM did not start") && v.wasShot():
		v.tally.count("start of a sidecar that was killed before it was ready", took)
		v.cleaned(ctx)
	case code != 0 && !explained(errs):
		v.failure(fmt.Sprintf("virsh %s: %s", strings.Join(args, " "), strings.TrimSpace(errs)))
	}
	return out
}

// explained tells errors that are the VM's own end at that moment.
func explained(errs string) bool {
	for _, s := range []string{"domain is not running", "is already active", "domain is already running", "not in the 'running' state", "guest unexpectedly quit"} {
		if strings.Contains(errs, s) {
			return true
		}
	}
	return false
}

// wasShot tells whether a failed start is due to a kill: who connects to a sidecar that is not ready yet has nothing.
func (v *vm) wasShot() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return time.Since(v.shot) < limit/3
}

// cleaned demands that nothing is left of a start that failed.
func (v *vm) cleaned(ctx context.Context) {
	out, _, _ := v.host.Run(ctx, "sh", "-c", cleanScript, "sh", v.opts.UUID)
	if out != "" && ctx.Err() == nil {
		v.failure("left of a start that failed: " + out)
	}
}

const cleanScript = `
for i in 1 2 3 4 5 6 7 8 9 10; do
	left=$(ls -d /run/virt-attest/$1 /run/virt-attest-swtpm/$1 2>/dev/null; systemctl --plain --no-legend list-units "virt-attest-*@$1.service" | grep -E 'activ' | grep -v inactive)
	[ -n "$left" ] || exit 0
	sleep 0.2
done
echo "$left"; ls -l /run/virt-attest/$1
`

// note remembers what was done.
func (v *vm) note(what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.did = append(v.did, fmt.Sprintf("%.3f %s", time.Since(v.tally.began).Seconds(), what))
	if len(v.did) > 60 {
		v.did = v.did[len(v.did)-60:]
	}
}
