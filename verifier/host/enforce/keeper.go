package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/sidecarproto"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host/verdicts"
	"virt-attest/verifier/policy"
)

// Hypervisor is libvirt as far as VMs are acted on.
type Hypervisor interface {
	// Follow calls changed for each VM that runs, and for each that starts (began), reboots or ends, until ctx ends, whatever becomes
	// of libvirt meanwhile.
	Follow(ctx context.Context, changed func(vm attest.UUID, began bool)) error
	// Look tells of a VM. One that does not run has no Run.
	Look(ctx context.Context, vm attest.UUID) (Domain, error)
	// Do does an Action to a run of a VM: links are the MAC addresses of the interfaces that a change of link state is about.
	Do(ctx context.Context, vm attest.UUID, run, action string, links []string) error
}

// Domain is a VM as libvirt sees it.
type Domain struct {
	Run    string // "": it does not run
	Booted bool   // it began with a boot, as far as libvirt still tells
	Paused bool
	Links  []Link
}

// Link is a network interface.
type Link struct {
	MAC string
	Up  bool
}

// Sidecar is a connection to a VM's sidecar.
type Sidecar interface {
	Info(ctx context.Context) (*sidecarproto.Info, error)
	Agent(ctx context.Context, op uint8, in, out any) error
	Close()
}

// Verifier is what is asked of the Verifier. Each is an error while it is away.
type Verifier interface {
	Rules(ctx context.Context, vms []attest.UUID) ([]api.Rule, error)
	Acted(ctx context.Context, act api.Act) error
	Release(ctx context.Context, vm attest.UUID, epoch uint64, nonce []byte) ([]api.ReleasedSecret, error)
}

// Config is what a Keeper works with.
type Config struct {
	Allow       Allowed
	PerMinute   int        // VMs that may be shut down or destroyed in a minute
	HoldUnknown bool       // at its start a VM is held until its rule is known
	Hypervisor  Hypervisor // nil: nothing is done to VMs
	Dial        func(context.Context, attest.UUID) (Sidecar, error)
	VMs         func() []attest.UUID // with a sidecar
	Verifier    Verifier
	Board       *verdicts.Board
	State       string                   // path of the state file
	Asked       func(attest.UUID) string // the action that the domain itself asks for, "" none; may be nil
	Log         *slog.Logger
}

// Keeper looks after this host's VMs.
type Keeper struct {
	conf Config

	mu    sync.Mutex
	state *state
	fresh bool // there was no state before
	vms   map[attest.UUID]*ward
	hash  []byte // of the rules, as the Verifier told last
	asked []byte // hash by which rules were asked for last
	ended []time.Time
	wake  chan struct{}
	rules chan struct{} // rules are to be asked for
	mail  chan struct{} // there is something to tell
	unset bool          // the state is to be written
}

// ward is a VM that is looked after.
type ward struct {
	dirty, busy bool
	at          time.Time // to look again
	began       bool      // its start was seen, and not which run that was
	booted      string    // the run whose start was seen
	delivered   string    // run and secrets that it has
	tried       string    // verdict by which a delivery was tried last
}

// Ask names who knows what domains ask for themselves, before Run.
func (k *Keeper) Ask(asked func(attest.UUID) string) { k.conf.Asked = asked }

// New makes a Keeper, with what an earlier one left.
func New(c Config) (*Keeper, error) {
	k := &Keeper{conf: c, vms: make(map[attest.UUID]*ward), wake: make(chan struct{}, 1), rules: make(chan struct{}, 1), mail: make(chan struct{}, 1)}
	var err error
	k.state, k.fresh, err = readState(c.State)
	return k, err
}

// acts reports whether anything may be done to VMs.
func (k *Keeper) acts() bool { return k.conf.Hypervisor != nil && k.conf.Allow != Allowed{} }

// Held reports whether a VM is paused because of its verdict or its start gate.
func (k *Keeper) Held(vm attest.UUID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state.VMs[vm].Paused != nil
}

// Changed has a VM looked at. began: it has just been started.
func (k *Keeper) Changed(vm attest.UUID, began bool) {
	k.mu.Lock()
	w := k.vms[vm]
	if w == nil {
		w = new(ward)
		k.vms[vm] = w
		ring(k.rules)
	}
	w.dirty, w.began = true, w.began || began
	k.mu.Unlock()
	ring(k.wake)
}

// RulesAre takes the Verifier's word on whether rules have changed.
func (k *Keeper) RulesAre(hash []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hash = bytes.Clone(hash); !bytes.Equal(k.hash, k.asked) {
		ring(k.rules)
	}
}

func ring(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run looks after VMs until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	if k.acts() {
		for vm := range k.state.VMs { // whether they still run is to be seen
			k.Changed(vm, false)
		}
		parts.Go(func() {
			if err := k.conf.Hypervisor.Follow(ctx, k.Changed); err != nil {
				k.conf.Log.Error("VMs cannot be followed", "error", err)
			}
		})
	}
	parts.Go(func() { k.followVerdicts(ctx) })
	parts.Go(func() { k.followRules(ctx) })
	parts.Go(func() { k.tellAll(ctx) })
	ring(k.mail)
	slots := make(chan struct{}, maxParallel)
	for ctx.Err() == nil {
		for _, vm := range k.due(time.Now()) {
			slots <- struct{}{}
			parts.Go(func() {
				defer func() { <-slots }()
				k.look(ctx, vm)
			})
		}
		_ = k.save(false) // it has been logged
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-time.After(tick):
		}
	}
	return nil
}

// due takes the VMs that are to be looked at now.
func (k *Keeper) due(now time.Time) (out []attest.UUID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for vm, w := range k.vms {
		if !w.busy && (w.dirty || !w.at.IsZero() && !now.Before(w.at)) {
			w.busy, w.dirty, w.at = true, false, time.Time{}
			out = append(out, vm)
		}
	}
	return out
}

// look does for a VM what there is to do.
func (k *Keeper) look(ctx context.Context, vm attest.UUID) {
	at, gone := k.attend(ctx, vm)
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.vms[vm]
	w.busy = false
	w.at = at
	if w.dirty {
		ring(k.wake)
	} else if gone {
		delete(k.vms, vm)
	}
}

// attend looks at a VM, and does steps until there is none. gone: it does not run.
func (k *Keeper) attend(ctx context.Context, vm attest.UUID) (at time.Time, gone bool) {
	for range maxSteps {
		f, d, err := k.facts(ctx, vm)
		if err != nil {
			k.conf.Log.Debug("a VM cannot be looked at", "vm", vm, "error", err)
			return time.Now().Add(rulesRetry), false
		}
		if !k.acts() {
			k.deliver(ctx, f)
			return time.Time{}, f.Verdict == nil
		}
		step, at := k.decide(f)
		if step == nil {
			k.deliver(ctx, f)
			return at, f.Run == ""
		}
		k.carry(ctx, f, d, step)
	}
	return time.Now().Add(tick), false
}

// facts gathers what is known of a VM now.
func (k *Keeper) facts(ctx context.Context, vm attest.UUID) (f Facts, d Domain, err error) {
	f = Facts{VM: vm}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if k.acts() {
		if d, err = k.conf.Hypervisor.Look(ctx, vm); err != nil {
			return f, d, err
		}
		f.Run, f.Paused = d.Run, d.Paused
	}
	if f.Run != "" || !k.acts() {
		f.Epoch = k.epoch(ctx, vm)
	}
	if v, ok := k.conf.Board.Latest(vm); ok {
		f.Verdict = &Verdict{State: v.State, Epoch: v.Epoch, Report: v.Report, Made: v.MadeAt(), Expires: v.ExpiresAt()}
	}
	asked := ""
	if k.conf.Asked != nil {
		asked = k.conf.Asked(vm)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if r, ok := k.state.Rules[vm]; ok {
		r.Action = policy.Harder(r.Action, asked) // whoever may change a domain may ask for more than its policy and not for less
		f.Rule = &r
	} else if k.conf.HoldUnknown {
		f.Rule = &api.Rule{Machine: vm, Action: "report", Undo: true, Gate: true, Limit: ruleTime, Otherwise: "release", Links: "as-defined"}
	}
	w := k.vms[vm]
	if w.began && d.Run != "" {
		w.began, w.booted = false, d.Run
	}
	seen := d.Run != "" && w.booted == d.Run
	_, known := k.state.VMs[vm]
	f.Booted = seen || d.Booted && (known || !k.fresh) // what ran when hostd was installed is not cut off for a start
	return f, d, nil
}

// epoch asks which run of the vTPM this is; 0: not known.
func (k *Keeper) epoch(ctx context.Context, vm attest.UUID) uint64 {
	c, err := k.conf.Dial(ctx, vm)
	if err != nil {
		return 0
	}
	defer c.Close()
	info, err := c.Info(ctx)
	if err != nil || info.VTPM == sidecarproto.VTPMOff {
		return 0
	}
	return info.Epoch
}

// decide decides, and remembers.
func (k *Keeper) decide(f Facts) (*Step, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	before := k.state.VMs[f.VM]
	step, m, at := decide(now, f, before, k.conf.Allow)
	if step != nil && ends(step.Action) && !k.mayEnd(now) {
		k.conf.Log.Warn("a VM is not ended now: too many were in the last minute", "vm", f.VM, "action", step.Action, "most", k.conf.PerMinute)
		step, at = nil, now.Add(between)
	}
	if f.Run == "" {
		delete(k.state.VMs, f.VM)
	} else {
		k.state.VMs[f.VM] = m
	}
	k.unset = k.unset || before.Run != m.Run || before.Gate != m.Gate || (before.Paused == nil) != (m.Paused == nil)
	return step, at
}

// mayEnd reports whether another VM may be ended: a Verifier that is mistaken about all VMs does not end all of them at once.
func (k *Keeper) mayEnd(now time.Time) bool {
	k.ended = slices.DeleteFunc(k.ended, func(t time.Time) bool { return now.Sub(t) > time.Minute })
	if len(k.ended) >= k.conf.PerMinute {
		return false
	}
	k.ended = append(k.ended, now)
	return true
}

// carry carries a step out. What is begun is on disk before.
func (k *Keeper) carry(ctx context.Context, f Facts, d Domain, s *Step) {
	log := k.conf.Log.With("vm", f.VM, "action", s.Action, "why", s.Why, "state", s.State, "report", s.Report)
	links := k.begin(f.VM, s, d)
	if err := k.save(true); err != nil && against(s.Action) && s.Action != api.ActDestroy {
		k.end(f, s, fmt.Errorf("what is done could not be undone, because it cannot be noted: %w", err))
		log.Error("a VM is not acted on", "error", err)
		return
	}
	var err error
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if s.Action != api.ActGate {
		err = k.conf.Hypervisor.Do(ctx, f.VM, f.Run, s.Action, links)
	}
	if err == nil && s.Late {
		err = errors.New("the guest was asked to shut down before, and did not")
		log.Warn("a VM does not shut down", "error", err)
	} else if err != nil {
		log.Error("a VM could not be acted on", "error", err)
	} else {
		log.Warn("VM acted on")
	}
	k.end(f, s, err)
	_ = k.save(false) // it has been logged
}

// begin notes what is begun, and gives the interfaces that it is about.
func (k *Keeper) begin(vm attest.UUID, s *Step, d Domain) (links []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var up, all []string
	for _, l := range d.Links {
		all = append(all, l.MAC)
		if l.Up {
			up = append(up, l.MAC)
		}
	}
	m := k.state.VMs[vm]
	m.begins(s, up)
	k.state.VMs[vm] = m
	k.unset = true
	switch {
	case s.Action == api.ActLinkDown:
		return all // those that are down stay so
	case s.AllLinks:
		return all
	}
	return m.Links
}

// end notes how a step ended, and what the Verifier is to be told.
func (k *Keeper) end(f Facts, s *Step, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	act := api.Act{Machine: f.VM, Action: s.Action, Why: s.Why, State: s.State, Report: s.Report, Time: now.UnixMilli()}
	m := k.state.VMs[f.VM]
	news := true
	if err != nil {
		act.Problem = attest.Clean(err.Error())
		act.Problem = act.Problem[:min(len(act.Problem), api.MaxActProblem)]
	}
	if err != nil && !s.Late {
		news = m.failed(now, s, act.Problem)
	} else {
		m.done(now, s)
	}
	k.state.VMs[f.VM] = m
	k.unset = true
	if news {
		k.post(act)
	}
}

// post has the Verifier told of something. k.mu is held.
func (k *Keeper) post(a api.Act) {
	if len(k.state.Outbox) >= maxOutbox {
		k.state.Outbox = k.state.Outbox[1:]
		k.conf.Log.Error("the Verifier will not be told of the oldest act", "most", maxOutbox)
	}
	k.state.Outbox = append(k.state.Outbox, a)
	k.unset = true
	ring(k.mail)
}

// save writes the state if it has changed.
func (k *Keeper) save(must bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.unset || !must && !k.acts() {
		return nil
	}
	err := k.state.write(k.conf.State)
	if err == nil {
		k.unset = false
	} else if !must {
		k.conf.Log.Error("what is done to VMs cannot be noted", "error", err)
	}
	return err
}
