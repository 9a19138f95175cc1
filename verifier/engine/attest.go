package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// Attest challenges a host now and gives the report. It ends with its context; the
// challenge itself goes on and its outcome is kept.
func (e *Engine) Attest(ctx context.Context, r *api.AttestRequest) (*api.Report, error) {
	timeout, err := timeoutOf(r.Timeout)
	if err != nil {
		return nil, err
	}
	host, vms, err := e.find(ctx, r)
	if err != nil {
		return nil, err
	}
	s, err := e.begin(ctx, host, vms, r.Scheme, timeout)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.done:
		return s.report, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func timeoutOf(seconds float64) (time.Duration, error) {
	if seconds == 0 {
		return DefaultTimeout, nil
	}
	if !(seconds >= minTimeout.Seconds() && seconds <= api.MaxTimeout.Seconds()) {
		return 0, said(ErrInvalid, "the timeout is not from %v to %v", minTimeout, api.MaxTimeout)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// begin makes a challenge, records it, and wakes the host.
func (e *Engine) begin(ctx context.Context, h *store.Host, vms []attest.UUID, scheme attest.Scheme, timeout time.Duration) (*session, error) {
	s := &session{e: e, host: h, began: time.Now(), done: make(chan struct{}), answer: make(chan *answer), keys: make(chan *opening),
		prior: make(map[attest.UUID]*past), names: map[attest.UUID]string{{}: h.Name}}
	s.deadline = s.began.Add(timeout)
	claimed, err := e.store.Claims(ctx, h.ID)
	if err != nil {
		return nil, fromStore(err, "host "+h.ID)
	}
	for _, c := range claimed {
		s.names[c.UUID] = c.Name
		if len(vms) == 0 && scheme != attest.SchemeHost {
			s.expected = append(s.expected, c.UUID)
		}
	}
	if len(vms) > 0 {
		s.expected = vms
	}
	s.challenge = &attest.Challenge{Nonce: random(), Scheme: scheme, Host: h.ID, VMs: vms, NotAfter: s.deadline.Unix() + 1, BootLogs: true}
	if err := s.remember(ctx); err != nil {
		return nil, err
	}
	if err := s.challenge.Check(); err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	return s, e.start(ctx, s)
}

// start registers the session before its nonce leaves, and lets it run.
func (e *Engine) start(ctx context.Context, s *session) error {
	e.mu.Lock()
	same := 0
	for _, o := range e.sessions {
		if o.host.ID == s.host.ID {
			same++
		}
	}
	busy := e.closed || len(e.sessions) >= maxSessions || same >= maxPerHost
	if !busy {
		e.sessions[s.challenge.Nonce] = s
		e.wg.Add(1) // under the lock: Close waits for no session that begins after it
	}
	e.mu.Unlock()
	if busy {
		return said(ErrBusy, "%d challenges to this host are under way", same)
	}
	if err := e.store.PutChallenge(ctx, &store.OpenChallenge{Challenge: s.challenge, Created: s.began}); err != nil {
		e.forget(s)
		e.wg.Done()
		return fromStore(err, "challenge")
	}
	s.step("step 1: the Verifier made nonce %x…, single use, for %v", s.challenge.Nonce[:8], s.challenge.Scheme)
	e.presence(s.host.ID).put(s)
	go func() {
		defer e.wg.Done()
		s.run()
	}()
	return nil
}

func (e *Engine) forget(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sessions, s.challenge.Nonce)
}

func (e *Engine) session(n attest.Nonce) *session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sessions[n]
}

// find is resolve, but gives a VM that was started this moment the time to be told of: its host's next
// word may be a second away.
func (e *Engine) find(ctx context.Context, r *api.AttestRequest) (*store.Host, []attest.UUID, error) {
	for end := time.Now().Add(tellTime); ; {
		host, vms, err := e.resolve(ctx, r)
		if !errors.Is(err, ErrNotFound) || len(r.VMs) == 0 || time.Now().After(end) {
			return host, vms, err
		}
		select {
		case <-time.After(tellEvery):
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// resolve finds the host and the VMs that a request is about.
func (e *Engine) resolve(ctx context.Context, r *api.AttestRequest) (*store.Host, []attest.UUID, error) {
	if r.Scheme.String() == fmt.Sprintf("scheme(%d)", uint8(r.Scheme)) {
		return nil, nil, said(ErrInvalid, "no scheme is given (host, sepa, hypa, sepa-exact)")
	}
	if len(r.VMs) > attest.MaxVMs || r.Scheme == attest.SchemeHost && len(r.VMs) > 0 {
		return nil, nil, said(ErrInvalid, "%d VMs are too many for scheme %v", len(r.VMs), r.Scheme)
	}
	hosts, err := e.store.Hosts(ctx)
	if err != nil {
		return nil, nil, fromStore(err, "hosts")
	}
	claims, err := e.store.Claims(ctx, "")
	if err != nil {
		return nil, nil, fromStore(err, "VMs")
	}
	host, err := pickHost(hosts, claims, r)
	if err != nil {
		return nil, nil, err
	}
	var vms []attest.UUID
	for _, v := range r.VMs {
		id, err := pickVM(claims, host.ID, v)
		if err != nil {
			return nil, nil, err
		}
		vms = append(vms, id)
	}
	slices.SortFunc(vms, attest.UUID.Compare)
	return host, slices.Compact(vms), nil
}

// pickHost finds the host that a request names, or the one that says it runs the first VM.
func pickHost(hosts []store.Host, claims []store.Claim, r *api.AttestRequest) (*store.Host, error) {
	match := func(h store.Host) bool { return r.Host == "" || h.ID == r.Host || h.Name == r.Host }
	if r.Host == "" && len(r.VMs) > 0 {
		match = func(h store.Host) bool {
			return slices.ContainsFunc(claims, func(c store.Claim) bool { return c.Host == h.ID && isVM(c, r.VMs[0]) })
		}
	}
	var found []store.Host
	for _, h := range hosts {
		if match(h) {
			found = append(found, h)
		}
	}
	approved := func(h store.Host) bool { return h.Approved() }
	if r.Host == "" && slices.ContainsFunc(found, approved) {
		// Whoever reaches the Verifier may say that it runs a VM: that must not hide the host that does.
		found = slices.DeleteFunc(found, func(h store.Host) bool { return !approved(h) })
	}
	switch {
	case len(found) == 1:
		return &found[0], nil
	case len(found) > 1:
		var ids []string
		for _, h := range found {
			ids = append(ids, h.ID)
		}
		return nil, said(ErrConflict, "several hosts are meant, name one by its ID: %v", ids)
	case r.Host == "" && len(r.VMs) > 0:
		return nil, said(ErrNotFound, "no host says that it runs VM %q", r.VMs[0])
	case r.Host == "":
		return nil, said(ErrNotFound, "no host is enrolled")
	}
	return nil, said(ErrNotFound, "host %q is not known", r.Host)
}

func isVM(c store.Claim, name string) bool {
	return c.Name == name || c.UUID.String() == name
}

// pickVM finds a VM of the host. A UUID need not be known: the host says whether it runs there.
func pickVM(claims []store.Claim, host, name string) (attest.UUID, error) {
	var found []attest.UUID
	for _, c := range claims {
		if c.Host == host && isVM(c, name) {
			found = append(found, c.UUID)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if len(found) > 1 {
		return attest.UUID{}, said(ErrConflict, "several VMs of the host are called %q, use the UUID", name)
	}
	if id, err := attest.ParseUUID(name); err == nil {
		return id, nil
	}
	return attest.UUID{}, said(ErrNotFound, "the host does not say that it runs VM %q", name)
}

// past is what is known of a machine when a challenge is made. Its answer is judged by that,
// whatever other answers come meanwhile.
type past struct {
	record store.Machine
	state  appraise.Machine
}

// remember reads the replay states of the machines that the challenge is about, and asks for
// logs from there on.
func (s *session) remember(ctx context.Context) error {
	machines := append([]attest.UUID{{}}, s.expected...)
	slices.SortFunc(machines, attest.UUID.Compare)
	for _, id := range machines {
		p, err := s.e.past(ctx, s.machineID(id))
		if err != nil {
			return err
		}
		s.prior[id] = p
		if r := p.state.Replay; r.Count > 0 && !p.state.Resync {
			s.challenge.Resume = append(s.challenge.Resume, attest.Resume{Machine: id, BootID: r.BootID, Count: r.Count})
		}
	}
	return nil
}

func (e *Engine) past(ctx context.Context, machine string) (*past, error) {
	rec, err := e.store.Machine(ctx, machine)
	if err != nil {
		return nil, fromStore(err, machine)
	}
	state, err := appraise.DecodeMachine(rec.State)
	if err != nil { // written by another release: begin again rather than stand still (CVE-2025-1057)
		e.log.Warn("replay state cannot be read, the machine's log is asked for from its beginning", "machine", machine, "err", err)
	}
	return &past{rec, state}, nil
}

// machineID is the store's name of a machine of this session.
func (s *session) machineID(id attest.UUID) string {
	if id == (attest.UUID{}) {
		return s.host.ID
	}
	return id.String()
}
