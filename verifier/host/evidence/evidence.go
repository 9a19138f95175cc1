// Package evidence gets one VM's part of an answer: what its sidecar, its guest agent and the
// hypervisor store have to say to one challenge.
//
// It is made in two parts. Binding holds everything that the host's quote will vouch for. Logs adds
// what explains it; in SEPA that is not under the host's quote, so it is fetched while the pTPM works.
//
// A VM that cannot answer gets a status and a reason, never an error: it stands in the answer all
// the same. Everything that comes from a guest is bounded here, and nothing of it is believed.
package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/sidecarproto"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/sidecars"
)

// Sidecar is a connection to a VM's sidecar (sidecars.Conn).
type Sidecar interface {
	Info(context.Context) (*sidecarproto.Info, error)
	EK(context.Context) (*sidecarproto.EK, error)
	PCRs(context.Context) (*sidecarproto.PCRs, error)
	Software(context.Context) (*sidecarproto.Software, error)
	Expect(ctx context.Context, extra []byte, keep time.Duration) error
	Agent(ctx context.Context, op uint8, in, out any) error
	Close()
}

// Collector asks VMs. It is safe for concurrent use.
type Collector struct {
	Dial    func(context.Context, attest.UUID) (Sidecar, error)
	Store   Store
	PCRs    []attest.PCRSelection  // that a vTPM quotes
	Timeout time.Duration          // for Binding, and for each piece of a log
	Held    func(attest.UUID) bool // VMs that this host has paused by a verdict; nil: none
	Log     *slog.Logger

	mu    sync.Mutex
	known map[attest.UUID]identity
}

// identity is what does not change while a vTPM stays powered on.
type identity struct {
	epoch      uint64
	ek, ekCert []byte
	ekName     attest.Name
	ak         []byte            // as the agent gave it; nil: not asked yet
	software   []attest.Software // swtpm and libtpms, once all are known
	agent      attest.AgentInfo
	agentAt    time.Time
}

// Answer is a VM's part of an Evidence in the making.
type Answer struct {
	VM attest.VMEvidence

	c      *Collector
	ch     *attest.Challenge
	conn   Sidecar
	id     identity
	logMax int
	silent bool // the agent has failed to answer
	asked  bool // id.ak is of this round
}

// Binding gets what the host's quote will vouch for, within the collector's timeout. logMax bounds the
// logs that are taken from this VM, in bytes. Logs must be called afterwards.
func (c *Collector) Binding(ctx context.Context, ch *attest.Challenge, d domains.Domain, logMax int) *Answer {
	a := &Answer{c: c, ch: ch, logMax: logMax, VM: attest.VMEvidence{UUID: d.UUID, Name: attest.Clean(d.Name), Status: attest.VMQuoted}}
	if !d.Sidecar {
		why := "its sidecar is not running"
		if !d.OptedIn {
			why = "it has no vTPM of virt-attest (see virt-attest enable)"
		}
		a.fail(attest.VMNoTPM, errors.New(why))
		return a
	}
	a.bind(ctx)
	if err := a.VM.Check(); err != nil { // one VM's excess must not spoil the answer about the others
		a.VM = attest.VMEvidence{UUID: d.UUID, Name: attest.Clean(d.Name), Epoch: a.VM.Epoch, EK: a.VM.EK, EKCert: a.VM.EKCert, EKName: a.VM.EKName}
		a.fail(attest.VMNoAnswer, err)
	}
	return a
}

// NotRunning is the answer about a VM that was asked for and does not run here.
func (c *Collector) NotRunning(id attest.UUID) *Answer {
	return &Answer{c: c, VM: attest.VMEvidence{UUID: id, Status: attest.VMNotRunning, Problem: "it does not run on this host"}}
}

func (a *Answer) bind(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, a.c.Timeout)
	defer cancel()
	if err := a.connect(short); err != nil {
		a.fail(statusOf(err), err)
		return
	}
	if a.c.Held != nil && a.c.Held(a.VM.UUID) {
		a.fail(attest.VMHeld, errors.New("it is paused because of an earlier verdict"))
		return
	}
	if len(a.ch.Signer) > 0 {
		a.linked(short)
		return
	}
	epoch := a.VM.Epoch
	if a.ch.Scheme != attest.SchemeHYPA {
		a.sepa(short)
		a.again(short, epoch)
		return
	}
	a.hypa(short)
	if a.again(short, epoch); a.VM.Status == attest.VMQuoted {
		a.imaLog(ctx)
	}
}

// rolledBack is why a vTPM runs with an earlier state than the last one that its store saw.
type rolledBack string

func (r rolledBack) Error() string { return string(r) }

func statusOf(err error) attest.VMStatus {
	if errors.As(err, new(rolledBack)) {
		return attest.VMRolledBack
	}
	return attest.VMNoTPM
}

// again looks once more whether an earlier state was restored, where the vTPM was powered on while it was asked.
func (a *Answer) again(ctx context.Context, epoch uint64) {
	if a.VM.Status != attest.VMQuoted || a.VM.Epoch == epoch {
		return
	}
	info, err := a.conn.Info(ctx)
	if err == nil && info.RolledBack != "" {
		err = rolledBack(info.RolledBack)
	}
	if err != nil {
		a.fail(statusOf(err), err)
	}
}

// Logs adds the logs that the host's quote does not vouch for and ends the connection.
func (a *Answer) Logs(ctx context.Context) {
	if a.conn == nil {
		return
	}
	if len(a.ch.Signer) > 0 { // whoever asked the guest has its logs
		a.conn.Close()
		a.conn = nil
		a.c.remember(a.VM.UUID, a.id)
		return
	}
	// A guest whose quote the store does not know has answered: what it says is kept for examination.
	answered := a.VM.Status == attest.VMQuoted || a.VM.Status == attest.VMNoRecord
	if a.ch.Scheme != attest.SchemeHYPA && answered {
		a.imaLog(ctx)
	}
	if answered && a.ch.WantsBootLog(a.VM.UUID, a.VM.IMA.BootID) {
		a.bootLog(ctx)
	}
	a.about(ctx)
	a.software(ctx)
	a.conn.Close()
	a.conn = nil
	a.c.remember(a.VM.UUID, a.id)
	if err := a.VM.Check(); err != nil { // none of these is under the host's quote
		a.VM.BootLog, a.VM.Agent, a.VM.Software = nil, attest.AgentInfo{}, nil
		if a.ch.Scheme != attest.SchemeHYPA {
			a.VM.IMA = attest.LogSegment{}
		}
		a.problem(err)
	}
}

// fail notes why the VM has no better status. The first reason stays.
func (a *Answer) fail(s attest.VMStatus, err error) {
	a.VM.Status, a.VM.QuoteHash, a.VM.AKName = s, attest.Digest{}, nil // the leaf of a VM without a quote holds none
	a.problem(err)
	if a.c.Log != nil {
		a.c.Log.Info("VM cannot answer", "vm", a.VM.UUID, "status", s, "error", err)
	}
}

func (a *Answer) problem(err error) {
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		text = fmt.Sprintf("no answer within %v: %s", a.c.Timeout, text)
	}
	if a.VM.Problem == "" {
		a.VM.Problem = attest.Clean(text)
	}
}

func (a *Answer) step(text string, args ...any) {
	a.c.Log.Debug(text, append([]any{"vm", a.VM.UUID}, args...)...)
}

// connect finds the sidecar and the vTPM behind it with its endorsement key.
func (a *Answer) connect(ctx context.Context) (err error) {
	if a.conn, err = a.c.Dial(ctx, a.VM.UUID); err != nil {
		return err
	}
	info, err := a.conn.Info(ctx)
	if err != nil {
		return err
	}
	a.VM.Epoch = info.Epoch
	if info.VTPM != sidecarproto.VTPMRunning && info.VTPM != sidecarproto.VTPMDown {
		return fmt.Errorf("its vTPM is not running (%s)", attest.Clean(string(info.VTPM)))
	}
	if info.RolledBack != "" {
		return rolledBack(info.RolledBack)
	}
	if a.id = a.c.recall(a.VM.UUID); a.id.epoch != info.Epoch || a.id.ek == nil {
		if err := a.readEK(ctx, info.Epoch); err != nil {
			return err
		}
	}
	a.VM.EK, a.VM.EKCert, a.VM.EKName = a.id.ek, a.id.ekCert, a.id.ekName
	return nil
}

func (a *Answer) readEK(ctx context.Context, epoch uint64) error {
	ek, err := a.conn.EK(ctx)
	if err != nil {
		return err
	}
	name, err := quote.NameOf(ek.Public)
	if err != nil {
		return fmt.Errorf("%w: its vTPM's endorsement key: %w", sidecars.ErrNoSidecar, err)
	}
	a.id = identity{epoch: epoch, ek: ek.Public, ekCert: ek.Cert, ekName: name}
	return nil
}

func (c *Collector) recall(id attest.UUID) identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[id]
}

func (c *Collector) remember(id attest.UUID, v identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) > 2*attest.MaxVMs { // UUIDs of VMs that are long gone
		c.known = make(map[attest.UUID]identity)
	}
	if v.ek != nil {
		c.known[id] = v
	}
}
