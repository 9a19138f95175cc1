// Package uplink is hostd's end of the interface to the Verifier (verifier/api). hostd calls out, so
// the Verifier needs no way to hosts:
//
//	hello → credentials are opened → challenges are waited for → each is answered → …
//
// When the Verifier is away, hostd tries again, ever more slowly and at random moments, so that
// the hosts of a site do not come back all at once. Nothing is stored for later: an answer that
// cannot be delivered before its challenge ends is worth nothing.
package uplink

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/evidence"
	"virt-attest/verifier/host/machine"
	"virt-attest/verifier/host/round"
	"virt-attest/verifier/host/verdicts"
)

// Every bound of the package.
const (
	pollWait     = 50 * time.Second // that the Verifier holds a request for challenges
	firstRetry   = 500 * time.Millisecond
	lastRetry    = 60 * time.Second
	resend       = 250 * time.Millisecond // between two attempts to deliver an answer, doubled each time
	helloPause   = time.Second            // between two hellos about VMs that came and went
	helloSettle  = 100 * time.Millisecond // gathers those that come together
	maxOpening   = 64                     // credentials that are opened at a time
	activateTime = 60 * time.Second
	minInterval  = time.Second      // of scheduled attestations
	maxJitter    = 0.5              // of the interval
	firstPush    = 10 * time.Second // within which the first scheduled attestation comes
)

// Verifier is what the uplink needs of api.Client.
type Verifier interface {
	Hello(context.Context, api.HostHello) (*api.HostWelcome, error)
	Poll(ctx context.Context, r api.PollRequest) (*api.Poll, error)
	Challenge(context.Context, api.ChallengeRequest) (*attest.Challenge, error)
	EncodedEvidence(context.Context, []byte) (*api.EvidenceReply, error)
	Activated(context.Context, api.Activated) error
	Rules(context.Context, api.RulesRequest) (*api.Rules, error)
	Acted(context.Context, api.Acted) error
	Release(context.Context, api.ReleaseRequest) (*api.Release, error)
	Close()
}

// Uplink answers a Verifier's challenges.
type Uplink struct {
	Name    string
	Connect func() (Verifier, error) // called for every new beginning
	Host    *machine.Host
	VMs     *evidence.Collector
	Engine  *round.Engine
	Domains *domains.Set
	Token   func() (string, error) // a one-time enrolment token, "" for none; may be nil
	Board   *verdicts.Board        // told of verdicts; may be nil
	Rules   func(hash []byte)      // told whether the rules of this host's VMs have changed; may be nil
	Log     *slog.Logger
	State   func(string) // told in a few words how it goes; may be nil

	schedule schedule

	mu       sync.Mutex
	current  Verifier
	id       string                // of the host, as far as the Verifier has welcomed it
	instance [16]byte              // random, of this session: challenges that an earlier one took come again
	working  map[attest.Nonce]bool // challenges that are being answered
	told     string                // cursor of the verdicts that the Board has
	again    atomic.Bool
	state    string // last told
}

// Reconnect makes the uplink begin anew, with new certificates, as soon as the request for challenges
// that is under way has ended: a challenge comes once, and one that is on its way would be lost.
// Answers in the making are not lost either.
func (u *Uplink) Reconnect() { u.again.Store(true) }

// Run serves until ctx ends, and returns when the last answer is done with.
func (u *Uplink) Run(ctx context.Context) error {
	var answers sync.WaitGroup
	defer answers.Wait()
	retry := firstRetry
	for {
		began := time.Now()
		err := u.session(ctx, &answers)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > lastRetry || errors.Is(err, errAgain) {
			retry = firstRetry
		}
		pause := retry/2 + rand.N(retry) //nolint:gosec // spreads hosts in time, is no secret
		u.tell("not connected: " + err.Error())
		u.Log.Warn("no Verifier", "error", err, "next_attempt", pause.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		retry = min(2*retry, lastRetry)
	}
}

// errAgain ends a session that shall be followed by another at once.
var errAgain = errors.New("beginning anew")

// tell says how it goes, when that has changed. Only Run's goroutine does.
func (u *Uplink) tell(state string) {
	if u.State != nil && state != u.state {
		u.state = state
		u.State(state)
	}
}

// tellConnected says whether the Verifier takes this host, which it does not before its endorsement key is accepted.
func (u *Uplink) tellConnected() {
	if u.schedule.accepted() {
		u.tell("connected")
		return
	}
	u.tell("connected, not accepted yet: an operator approves this host by its EK")
}

// session is one connection to the Verifier.
func (u *Uplink) session(run context.Context, answers *sync.WaitGroup) error {
	v, err := u.Connect()
	if err != nil {
		return err
	}
	defer v.Close()
	ctx, cancel := context.WithCancel(run)
	defer cancel()
	u.mu.Lock()
	u.current = v
	_, _ = cryptorand.Read(u.instance[:]) // never fails
	u.mu.Unlock()
	u.again.Store(false)
	changed := u.Domains.Changed()
	id, err := u.hello(ctx, v)
	if err != nil {
		return err
	}
	if !u.schedule.accepted() { // it may have been by the activation
		if id, err = u.hello(ctx, v); err != nil {
			return err
		}
	}
	u.tellConnected()
	u.Log.Info("Verifier connected", "host_id", id)
	u.mu.Lock()
	u.id = id
	u.mu.Unlock()
	failed := make(chan error, 1)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() {
		failed <- u.newVMs(ctx, v, changed)
		cancel()
	})
	beside.Go(func() { u.push(ctx, run, v, id, answers) })
	err = u.poll(ctx, run, v, id, answers)
	select {
	case e := <-failed:
		return e
	default:
		return err
	}
}

// poll takes challenges and has each answered beside the others.
func (u *Uplink) poll(ctx, run context.Context, v Verifier, id string, answers *sync.WaitGroup) error {
	r := api.PollRequest{Host: id, Wait: pollWait}
	if u.Board != nil {
		r.Verdicts = u.cursor()
	}
	for !u.again.Load() {
		p, err := v.Poll(ctx, r)
		if api.IsStatus(err, http.StatusForbidden) {
			return fmt.Errorf("this host is not accepted yet; an operator approves it by its EK: %w", err)
		}
		if err != nil {
			return err
		}
		u.schedule.set(p.Schedule, time.Now())
		u.rulesAre(p.Schedule, p.Rules)
		u.tellConnected()
		if u.Board != nil && p.Cursor != "" {
			u.Board.Update(p)
			r.Verdicts = u.keep(p.Cursor)
		}
		for _, ch := range p.Challenges {
			answers.Go(func() { _ = u.answer(run, &ch) })
		}
	}
	return errAgain
}

// cursor says which verdicts the Board has, whichever connection brought them.
func (u *Uplink) cursor() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.told == "" {
		return api.VerdictsBegin
	}
	return u.told
}

func (u *Uplink) keep(cursor string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.told = cursor
	return cursor
}

// newVMs introduces the host again when its VMs change, so that the Verifier knows them by name: soon, and not more often than
// once in each helloPause.
func (u *Uplink) newVMs(ctx context.Context, v Verifier, changed <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
		if err := sleep(ctx, helloSettle); err != nil {
			return err
		}
		changed = u.Domains.Changed()
		if _, err := u.hello(ctx, v); err != nil {
			return err
		}
		if err := sleep(ctx, helloPause); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// hello introduces the host and opens the credential that it may be given.
func (u *Uplink) hello(ctx context.Context, v Verifier) (string, error) {
	id, err := u.Host.TPM.Identity(ctx)
	if err != nil {
		return "", err
	}
	h := api.HostHello{Name: u.Name, EK: id.EK, EKCert: id.EKCert, AK: id.AK, Software: u.Host.Versions()}
	u.mu.Lock()
	h.Instance = bytes.Clone(u.instance[:])
	u.mu.Unlock()
	for _, d := range u.Domains.Attested() {
		h.VMs = append(h.VMs, api.HostVM{UUID: d.UUID, Name: attest.Clean(d.Name)})
	}
	if u.Token != nil {
		if h.Token, err = u.Token(); err != nil {
			return "", fmt.Errorf("the enrolment token cannot be read: %w", err)
		}
	}
	w, err := v.Hello(ctx, h)
	if err != nil {
		return "", err
	}
	if w.ID != id.ID {
		return "", fmt.Errorf("the Verifier takes this host for %q, its TPM says %q", w.ID, id.ID)
	}
	u.schedule.set(w.Schedule, time.Now())
	u.rulesAre(w.Schedule, w.Rules)
	return id.ID, u.activate(ctx, v, attest.Nonce{}, w.Activation)
}

// begin reports whether a challenge is not being answered already: after a connection that broke the Verifier
// gives again what it has no answer to.
func (u *Uplink) begin(n attest.Nonce) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.working[n] {
		return false
	}
	if u.working == nil {
		u.working = make(map[attest.Nonce]bool)
	}
	u.working[n] = true
	return true
}

func (u *Uplink) end(n attest.Nonce) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.working, n)
}

// ErrAway says that there is no Verifier that has welcomed this host.
var ErrAway = errors.New("there is no connection to the Verifier")

// Attest has VMs attested now (none: all), by a scheme (0: that of the schedule), because of something that happened here. It
// returns when the Evidence is delivered, and gives the ID of the report that comes of it.
func (u *Uplink) Attest(ctx context.Context, vms []api.HostVM, scheme attest.Scheme, why string) (report string, err error) {
	u.mu.Lock()
	v, id := u.current, u.id
	u.mu.Unlock()
	if v == nil || id == "" {
		return "", ErrAway
	}
	if scheme == 0 {
		scheme = u.schedule.scheme()
	}
	ch, err := v.Challenge(ctx, api.ChallengeRequest{Host: id, Scheme: scheme, VMs: vms, Why: why})
	if err != nil {
		return "", err
	}
	return ch.Nonce.String(), u.answer(ctx, ch)
}

// answer makes and delivers the answer to one challenge. The Verifier does without one that fails.
func (u *Uplink) answer(ctx context.Context, ch *attest.Challenge) error {
	if !u.begin(ch.Nonce) {
		return nil
	}
	defer u.end(ch.Nonce)
	log := u.Log.With("scheme", ch.Scheme, "challenge", attest.HexBytes(ch.Nonce[:8]))
	log.Info("challenge", "vms", len(ch.VMs))
	ctx, cancel := context.WithDeadline(ctx, time.Unix(ch.NotAfter, 0))
	defer cancel()
	began := time.Now()
	ev, err := u.Engine.Answer(ctx, ch)
	if err != nil {
		log.Error("no answer", "error", err)
		if errors.Is(err, machine.ErrOtherTPM) {
			u.Reconnect() // the host has another name now
		}
		return err
	}
	b, err := ev.Encode()
	if err != nil {
		log.Error("no answer", "error", err)
		return err
	}
	reply, err := u.deliver(ctx, b)
	if err != nil {
		log.Error("answer not delivered", "error", err)
		return err
	}
	log.Info("answered", "vms", len(ev.VMs), "bytes", len(b), "took", time.Since(began).Round(time.Millisecond))
	if len(reply.Activation) == 0 {
		return nil
	}
	keys, err := u.opened(ctx, ch.Nonce, reply.Activation)
	if err == nil {
		err = u.insist(ctx, func(v Verifier) error { return v.Activated(ctx, *keys) })
	}
	if err != nil {
		log.Error("credentials not returned", "error", err)
	}
	return err
}

// deliver sends an answer until the Verifier takes or refuses it or its time is over.
func (u *Uplink) deliver(ctx context.Context, b []byte) (reply *api.EvidenceReply, err error) {
	err = u.insist(ctx, func(v Verifier) (err error) {
		reply, err = v.EncodedEvidence(ctx, b)
		return err
	})
	return reply, err
}

// insist calls f until the Verifier, whichever replica of it is there, has taken or refused what it sends, or its time is
// over.
func (u *Uplink) insist(ctx context.Context, f func(Verifier) error) error {
	for pause := resend; ; pause *= 2 {
		u.mu.Lock()
		v := u.current
		u.mu.Unlock()
		err := f(v)
		var p *api.Problem
		if err == nil || errors.As(err, &p) && p.Status < http.StatusInternalServerError && p.Status != http.StatusTooManyRequests {
			return err
		}
		u.Log.Debug("not delivered yet", "error", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause/2 + rand.N(pause)): //nolint:gosec // spreads hosts in time, is no secret
		}
	}
}

// activate opens the host's own credential and returns what is in it.
func (u *Uplink) activate(ctx context.Context, v Verifier, nonce attest.Nonce, list []api.Activation) error {
	if len(list) == 0 {
		return nil
	}
	keys, err := u.opened(ctx, nonce, list)
	if err != nil {
		return err
	}
	return v.Activated(ctx, *keys)
}

// opened opens credentials, the host's own and those of VMs. A machine that cannot is left out; the Verifier knows then.
func (u *Uplink) opened(ctx context.Context, nonce attest.Nonce, list []api.Activation) (*api.Activated, error) {
	id, err := u.Host.TPM.Identity(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, activateTime)
	defer cancel()
	keys := make([]api.ActivatedKey, len(list))
	slots := make(chan struct{}, maxOpening)
	var group sync.WaitGroup
	for i, a := range list[:min(len(list), attest.MaxVMs+1)] {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			keys[i] = u.open(ctx, a)
		})
	}
	group.Wait()
	out := &api.Activated{Host: id.ID, Nonce: nonce}
	for _, k := range keys {
		if k.Secret != nil {
			out.Items = append(out.Items, k)
		}
	}
	return out, nil
}

func (u *Uplink) open(ctx context.Context, a api.Activation) api.ActivatedKey {
	ask := u.VMs.Activate
	if evidence.IsHost(a) {
		ask = u.Host.TPM.Activate
	}
	secret, err := ask(ctx, a)
	if err != nil {
		u.Log.Warn("a credential could not be opened", "machine", a.Machine, "error", err)
	}
	return api.ActivatedKey{Machine: a.Machine, Secret: secret}
}
