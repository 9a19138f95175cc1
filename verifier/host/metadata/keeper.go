// Package metadata shows the verdicts on a host's VMs in the metadata of their libvirt domains, and takes requests from there: an
// operator who has only virsh asks by one element, and another one comes in its place (docs/virsh.md).
//
//	virsh metadata DOM --uri https://virt-attest.org/xmlns/attest/1 --key attest --set '<attest:request scheme="sepa"/>'
//
// Whoever may change domains may write anything there. So what stands there is never believed: it can ask for an attestation, or
// for more of them than the Verifier's policies say, and a verdict that hostd has not written is overwritten and reported. What is
// shown is for people; programs check its signature (docs/adr/0006-metadata.md). Verdicts are in the running domain's XML only, so
// they end with it; what a saved or migrated domain brings along is overwritten as soon as it runs here.
package metadata

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/sidecarproto"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/lifecycle"
	"virt-attest/verifier/host/verdicts"
)

// Notes are the domains' metadata. A call may take half a minute. ErrGone is told by Gone.
type Notes interface {
	Read(vm attest.UUID, persistent bool) (string, error)
	Write(vm attest.UUID, text string) error
}

// Keeper keeps what is shown true.
type Keeper struct {
	Notes   Notes
	Gone    error // that Notes give for a domain that does not run
	Board   *verdicts.Board
	Domains *domains.Set
	Tell    func(vm attest.UUID, what lifecycle.Kind, scheme attest.Scheme)
	Log     *slog.Logger
	Asks    func(vm attest.UUID) // told when the action that a domain asks for is another one; may be nil

	once  sync.Once
	mu    sync.Mutex
	vms   map[attest.UUID]*state
	dirty map[attest.UUID]bool
	kick  chan struct{}
}

// state is what is known of one domain's metadata.
type state struct {
	busy     bool
	written  string // by us; "": not yet
	live     Policy
	config   Policy
	action   string    // that Asks was told of
	since    time.Time // the run began
	epoch    uint64    // of the run, 0 where nobody has told
	asked    time.Time // by a request that has no answer yet
	report   string    // that answers it
	problem  string
	forged   time.Time // when a forged verdict was last told of
	interval time.Time // when the next attestation by the policy's interval is due
	failures int
	retry    time.Time
}

func (k *Keeper) init() {
	k.once.Do(func() {
		k.vms, k.dirty, k.kick = make(map[attest.UUID]*state), make(map[attest.UUID]bool), make(chan struct{}, 1)
	})
}

// of gives a domain's state; k.mu is held.
func (k *Keeper) of(vm attest.UUID) *state {
	s := k.vms[vm]
	if s == nil {
		s = new(state)
		k.vms[vm] = s
	}
	return s
}

// mark has a domain's metadata looked at; k.mu is held.
func (k *Keeper) mark(vm attest.UUID) {
	k.dirty[vm] = true
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Noted has a domain's metadata looked at, since somebody changed it. It does not wait.
func (k *Keeper) Noted(vm attest.UUID) {
	k.init()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mark(vm)
}

// Happened takes what happened to a domain: of one that runs anew no verdict of before is shown. It does not wait.
func (k *Keeper) Happened(vm attest.UUID, what lifecycle.Kind) {
	k.init()
	k.mu.Lock()
	defer k.mu.Unlock()
	switch what {
	case lifecycle.Started, lifecycle.Restored, lifecycle.Migrated, lifecycle.Reverted:
		was := k.of(vm)
		k.vms[vm] = &state{since: time.Now(), busy: was.busy, epoch: was.epoch}
		k.mark(vm)
	case lifecycle.Reset:
		k.of(vm).since = time.Now()
		k.mark(vm)
	}
}

// Moved takes a moment of a VM's sidecar.
func (k *Keeper) Moved(vm attest.UUID, m sidecarproto.Moment) {
	k.init()
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.of(vm); s.epoch != m.Epoch {
		s.epoch = m.Epoch
		k.mark(vm)
	}
}

// Asked takes the end of an attestation.
func (k *Keeper) Asked(r *lifecycle.Request, report string, err error) {
	k.init()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, vm := range r.VMs {
		s := k.of(vm)
		if s.asked.IsZero() || !r.Cause(vm, lifecycle.Asked) {
			continue
		}
		if s.report = report; err != nil {
			s.asked, s.problem = time.Time{}, "no attestation now, it is tried again: "+err.Error()
		}
		k.mark(vm)
	}
}

// Policy gives what a domain's metadata asks for beyond what the Verifier says.
func (k *Keeper) Policy(vm attest.UUID) Policy {
	k.init()
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.of(vm)
	return s.live.Stricter(s.config)
}

// All has every domain looked at, as after libvirt was away.
func (k *Keeper) All() {
	k.init()
	list := k.Domains.Attested()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range list {
		k.mark(d.UUID)
	}
}

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	k.init()
	news := k.Board.Subscribe()
	defer news.Close()
	var group sync.WaitGroup
	defer group.Wait()
	work := make(chan attest.UUID)
	defer close(work)
	for range workers {
		group.Go(func() {
			for vm := range work {
				k.sync(vm)
			}
		})
	}
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		for vm, ok := k.next(time.Now()); ok; vm, ok = k.next(time.Now()) {
			select {
			case work <- vm:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.kick:
		case <-news.Changed():
			k.judged(news.Take())
		case <-tick.C:
			k.tick(time.Now())
		}
	}
}

// next takes a domain that is to be looked at.
func (k *Keeper) next(now time.Time) (attest.UUID, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for vm := range k.dirty {
		if s := k.of(vm); !s.busy && !now.Before(s.retry) {
			delete(k.dirty, vm)
			s.busy = true
			return vm, true
		}
	}
	return attest.UUID{}, false
}

func (k *Keeper) judged(machines []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range machines {
		if vm, err := attest.ParseUUID(m); err == nil {
			k.of(vm).problem = ""
			k.mark(vm)
		}
	}
}

// tick looks at what comes with time: verdicts that expire, requests without an answer, intervals. Domains that are gone are
// forgotten.
func (k *Keeper) tick(now time.Time) {
	there := make(map[attest.UUID]bool)
	for _, d := range k.Domains.Attested() {
		there[d.UUID] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for vm, s := range k.vms {
		if !there[vm] {
			if !s.busy && !k.dirty[vm] {
				delete(k.vms, vm)
			}
			continue
		}
		if !s.asked.IsZero() && now.Sub(s.asked) > answerTime {
			s.asked, s.problem = time.Time{}, "no verdict came within "+answerTime.String()
		}
		if s.asked.IsZero() && k.text(vm, s) != s.written {
			k.mark(vm)
		}
		p := s.live.Stricter(s.config)
		switch {
		case p.Interval == 0:
			s.interval = time.Time{}
		case s.interval.IsZero():
			s.interval = now.Add(p.Interval)
		case !now.Before(s.interval):
			s.interval = now.Add(p.Interval)
			k.Tell(vm, lifecycle.Interval, p.Scheme)
		}
	}
}

// sync reads a domain's metadata, takes what is asked for there, and writes what is to be shown.
func (k *Keeper) sync(vm attest.UUID) {
	err := k.look(vm)
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.of(vm)
	s.busy = false
	switch {
	case err == nil:
		s.failures = 0
	case k.Gone != nil && errors.Is(err, k.Gone):
		delete(k.vms, vm)
		return
	default: // a job holds the domain, or libvirtd is away
		s.failures++
		s.retry = time.Now().Add(min(firstRetry<<min(s.failures-1, 10), lastRetry))
		if s.failures == tellAfter {
			k.Log.Warn("a domain's metadata cannot be kept: another job holds the domain, or libvirt lets hostd not write ([libvirt] metadata = false does without)", "vm", vm, "error", err)
		}
		k.dirty[vm] = true
	}
	if k.dirty[vm] { // it was marked meanwhile
		k.mark(vm)
	}
}

func (k *Keeper) look(vm attest.UUID) error {
	text, err := k.Notes.Read(vm, false)
	if err != nil {
		return err
	}
	if err := k.readConfig(vm); err != nil {
		return err
	}
	write, since, ok := k.take(vm, text)
	if !ok {
		return nil
	}
	if err := k.Notes.Write(vm, write); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.of(vm); s.since.Equal(since) {
		s.written = write
	}
	return nil
}

// readConfig reads what the domain's definition asks for, once in a run and whenever somebody has changed something.
func (k *Keeper) readConfig(vm attest.UUID) error {
	text, err := k.Notes.Read(vm, true)
	if err != nil && (k.Gone == nil || !errors.Is(err, k.Gone)) {
		return err
	}
	var p Policy
	if err == nil && text != "" { // a transient domain has no definition
		if e, err := Parse(text); err == nil && e.Policy != nil && !e.Shown {
			p = *e.Policy
		} else if err != nil {
			k.Log.Warn("a domain's definition has metadata that nobody can read", "vm", vm, "error", err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.of(vm).config = p
	return nil
}

// take takes what a domain's metadata asks for, and gives what is to stand there; ok is false where nothing is to be written.
func (k *Keeper) take(vm attest.UUID, text string) (write string, since time.Time, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.of(vm)
	same := s.written != "" && canonical(text) == canonical(s.written)
	if !same && text != "" {
		k.read(vm, s, text)
	}
	if a := s.live.Stricter(s.config).Action; a != s.action && k.Asks != nil {
		s.action = a
		k.Asks(vm)
	}
	k.answered(vm, s)
	if !s.asked.IsZero() || !k.enabled(vm) && s.problem == "" {
		return "", s.since, false // a request stands until it is answered; other domains are no concern of ours
	}
	write = k.text(vm, s)
	return write, s.since, !same || write != s.written
}

// read takes what somebody else has written.
func (k *Keeper) read(vm attest.UUID, s *state, text string) {
	e, err := Parse(text)
	switch {
	case err != nil:
		s.problem = err.Error()
	case e.Request != nil:
		k.ask(vm, s, *e.Request)
	case e.Policy != nil && !e.Shown:
		s.live, s.problem = *e.Policy, ""
	case s.written == "": // left by a hostd of before, by a saved state or by another host: of it, only the policy asks for something
		if e.Policy != nil {
			s.live = *e.Policy
		}
	default:
		k.forgedBy(vm, s)
	}
}

// enabled reports whether a domain takes part in attestation.
func (k *Keeper) enabled(vm attest.UUID) bool {
	d, ok := k.Domains.Find(vm)
	return ok && (d.OptedIn || d.Sidecar)
}

// forgedBy notes that somebody has written a verdict. The machine is attested, so that the right one is new.
func (k *Keeper) forgedBy(vm attest.UUID, s *state) {
	now := time.Now()
	if now.Sub(s.forged) < forgedEvery {
		s.retry = now.Add(firstRetry)
		return
	}
	s.forged = now
	k.Log.Warn("somebody wrote a verdict into a domain's metadata; it is overwritten", "vm", vm)
	k.Tell(vm, lifecycle.Forged, 0)
}

// ask takes a request. A verdict that still counts answers one that wants no fresh one.
func (k *Keeper) ask(vm attest.UUID, s *state, r Request) {
	s.problem = ""
	if !k.enabled(vm) {
		s.problem = "this domain has no vTPM of virt-attest: virt-attest enable gives it one"
		return
	}
	if v := k.verdict(vm, s); !r.Fresh && v.State == appraise.Trusted {
		return
	}
	if s.asked.IsZero() {
		s.asked, s.report = time.Now(), ""
		k.Tell(vm, lifecycle.Asked, r.Scheme)
	}
}

// answered ends a request whose verdict is there.
func (k *Keeper) answered(vm attest.UUID, s *state) {
	if s.asked.IsZero() || s.report == "" {
		return
	}
	v, ok := k.Board.Latest(vm)
	if ok && (v.Report == s.report || v.Received.After(s.asked)) {
		s.asked, s.report = time.Time{}, ""
	}
}

// verdict gives what a VM's newest verdict counts for in this run. k.mu is held.
func (k *Keeper) verdict(vm attest.UUID, s *state) verdicts.Verdict {
	v, ok := k.Board.Latest(vm)
	if ok && !v.Received.Before(s.since) && (s.epoch == 0 || v.Epoch == 0 || v.Epoch == s.epoch) {
		return v
	}
	none := verdicts.Verdict{}
	none.State = appraise.Pending
	none.Reasons = []api.HostReason{{Code: appraise.CodeNeverAttested, Layer: appraise.LayerVerifier, Text: "this run of the VM has not been attested yet"}}
	return none
}

// text gives what is to be shown of a domain. k.mu is held.
func (k *Keeper) text(vm attest.UUID, s *state) string {
	return Format(Shown{Verdict: k.verdict(vm, s), Policy: s.live, Error: s.problem})
}
