// Package round answers challenges with as few quotes of the physical TPM as can be.
//
// A challenge goes through three stations:
//
//  1. Its VMs are asked, all at the same time, each for a bounded time (evidence.Collector). A VM
//     that is slow delays the challenges that ask for it and no others.
//  2. The challenges that are ready are bound together (attest/binding) and the pTPM quotes once
//     for all of them. A challenge that becomes ready while the pTPM works joins the next round.
//     A ready challenge waits for others that are still at station 1, but not longer than
//     the pTPM's last quote took. attest.SchemeSEPAExact is alone in its round.
//  3. Each gets its own inclusion. Logs that the quote does not vouch for were fetched meanwhile.
package round

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/hypa"
	"virt-attest/attest/sepa"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/evidence"
	"virt-attest/verifier/host/machine"
)

// Every bound of the package.
const (
	MaxWaiting  = 64                     // challenges that are being answered
	maxParallel = 32                     // VMs of one challenge that are asked at a time
	maxLogs     = 64 << 20               // bytes of all logs in one Evidence: with the rest of 4096 VMs below 128 MiB
	firstLinger = 20 * time.Millisecond  // before the pTPM's speed is known
	maxLinger   = 250 * time.Millisecond // that a ready challenge waits for others
	maxQuote    = 10 * time.Minute       // far more than ptpm.DefaultTimeout for each of its commands
)

var (
	// ErrBusy says that MaxWaiting challenges are being answered already.
	ErrBusy = errors.New("round: too many challenges are waiting")
	// ErrChallenge says that a challenge is malformed, expired or meant for another host.
	ErrChallenge = errors.New("round: not a challenge to this host")
)

// Engine answers challenges. Run must be running.
type Engine struct {
	host    *machine.Host
	vms     *evidence.Collector
	domains *domains.Set
	log     *slog.Logger

	mu         sync.Mutex
	waiting    int           // challenges at any station
	collecting int           // of them at station 1
	ready      []*ticket     // at station 2
	wake       chan struct{} // something of the above has changed
	linger     time.Duration
	began      time.Time // when the quote that is under way was begun
}

// New makes an engine. It is the only user of host's TPM while it runs.
func New(host *machine.Host, vms *evidence.Collector, set *domains.Set, log *slog.Logger) *Engine {
	return &Engine{host: host, vms: vms, domains: set, log: log, wake: make(chan struct{}, 1), linger: firstLinger}
}

// ticket is a challenge at station 2.
type ticket struct {
	ctx   context.Context
	ch    *attest.Challenge
	item  attest.Digest // of the round's tree
	exact *[32]byte     // or the paper's own composite
	done  chan outcome
}

type outcome struct {
	quote attest.Quote
	pcrs  []attest.PCRBank
	in    attest.Inclusion
	err   error
}

// Answer makes the Evidence for one challenge. It returns at the latest when the challenge expires. An
// error means that there is no Evidence: the TPM failed, or the challenge is none for this host.
func (e *Engine) Answer(ctx context.Context, ch *attest.Challenge) (*attest.Evidence, error) {
	if err := e.accept(ctx, ch); err != nil {
		return nil, err
	}
	defer e.note(func() { e.waiting-- })
	ctx, cancel := context.WithDeadline(ctx, time.Unix(ch.NotAfter, 0))
	defer cancel()
	answers := e.collect(ctx, ch)
	t := newTicket(ctx, ch, answers)
	logs := e.fetchLogs(ctx, answers)
	out, err := e.quoted(t)
	logs.Wait()
	if err != nil {
		return nil, err
	}
	ev := &attest.Evidence{Version: attest.EvidenceVersion, Challenge: *ch, Inclusion: out.in}
	if ev.Host, err = e.host.Evidence(ctx, ch, out.quote, out.pcrs, share(len(answers))); err != nil {
		return nil, err
	}
	for _, a := range answers {
		ev.VMs = append(ev.VMs, a.VM)
	}
	return ev, ev.Check()
}

// accept checks the challenge and counts it.
func (e *Engine) accept(ctx context.Context, ch *attest.Challenge) error {
	id, err := e.host.TPM.Identity(ctx)
	if err != nil {
		return err
	}
	if err := ch.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrChallenge, err)
	}
	if ch.Host != id.ID || ch.Expired(time.Now()) {
		return fmt.Errorf("%w: for host %q until %v", ErrChallenge, ch.Host, time.Unix(ch.NotAfter, 0))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting >= MaxWaiting {
		return ErrBusy
	}
	e.waiting++
	return nil
}

// note changes the counters and tells Run.
func (e *Engine) note(f func()) {
	e.mu.Lock()
	f()
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// collect is station 1. Answers are in ascending order of UUID.
func (e *Engine) collect(ctx context.Context, ch *attest.Challenge) []*evidence.Answer {
	e.note(func() { e.collecting++ })
	defer e.note(func() { e.collecting-- })
	asked := e.asked(ch)
	answers := make([]*evidence.Answer, len(asked))
	slots := make(chan struct{}, maxParallel)
	var group sync.WaitGroup
	for i, d := range asked {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if !d.OptedIn && !d.Sidecar && d.Name == "" {
				answers[i] = e.vms.NotRunning(d.UUID)
				return
			}
			answers[i] = e.vms.Binding(ctx, ch, d, share(len(asked)))
		})
	}
	group.Wait()
	return answers
}

// asked gives the domains that the challenge is about; one that does not run is an empty Domain.
func (e *Engine) asked(ch *attest.Challenge) []domains.Domain {
	if ch.Scheme == attest.SchemeHost {
		return nil
	}
	if len(ch.VMs) == 0 {
		return e.domains.Attested()
	}
	out := make([]domains.Domain, len(ch.VMs))
	for i, id := range ch.VMs {
		out[i], _ = e.domains.Find(id)
		out[i].UUID = id
	}
	return out
}

// share is what each machine's logs may take of an Evidence with so many VMs.
func share(vms int) int { return min(maxLogs/(vms+1), attest.MaxIMAData) }

// fetchLogs adds to the answers what the host's quote does not vouch for.
func (e *Engine) fetchLogs(ctx context.Context, answers []*evidence.Answer) *sync.WaitGroup {
	var group sync.WaitGroup
	slots := make(chan struct{}, maxParallel)
	for _, a := range answers {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			a.Logs(ctx)
		})
	}
	return &group
}

// quoted is station 2: it waits for the round.
func (e *Engine) quoted(t *ticket) (outcome, error) {
	e.note(func() { e.ready = append(e.ready, t) })
	select {
	case out := <-t.done:
		return out, out.err
	case <-t.ctx.Done():
		return outcome{}, t.ctx.Err()
	}
}

// newTicket computes what the pTPM shall vouch for.
func newTicket(ctx context.Context, ch *attest.Challenge, answers []*evidence.Answer) *ticket {
	t := &ticket{ctx: ctx, ch: ch, done: make(chan outcome, 1)}
	var body attest.Digest
	switch ch.Scheme {
	case attest.SchemeSEPAExact:
		extra := binding.Exact(ch.Nonce, answers[0].VM.QuoteHash)
		t.exact = &extra
		return t
	case attest.SchemeSEPA:
		leaves := make([]sepa.Leaf, len(answers))
		for i, a := range answers {
			leaves[i] = sepa.LeafOf(&a.VM)
		}
		body = sepa.Body(leaves)
	case attest.SchemeHYPA:
		vms := make([]attest.VMEvidence, len(answers))
		for i, a := range answers {
			vms[i] = a.VM
		}
		body = hypa.Body(hypa.SnapshotOf(vms))
	}
	t.item = binding.Item(ch.Scheme, ch.Nonce, body)
	return t
}
