package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/softhost"
	"virt-attest/internal/softtpm"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

// box is a simulated machine: a TPM in software, PCRs and logs as the kernel writes them.
type box struct {
	tpm    *softtpm.TPM
	ima    *measuretest.IMA
	boot   *measuretest.BootLog
	bootID string
}

func newBox() *box {
	b := &box{tpm: softtpm.New(rand.Reader, softtpm.ECCEK()), bootID: "boot-1"}
	b.tpm.Clock, b.tpm.ResetCount, b.tpm.Safe = 1000, 3, true
	pcrs := measuretest.NewPCRs(attest.SHA256)
	b.boot, b.ima = &measuretest.BootLog{PCRs: pcrs}, &measuretest.IMA{PCRs: pcrs}
	b.boot.Begin()
	b.boot.Event(0, measuretest.EvCRTM, []byte("firmware"))
	b.boot.Separators()
	b.ima.Boot()
	b.ima.File("/usr/bin/init", "init")
	return b
}

func (b *box) since(r attest.Resume) attest.LogSegment {
	seg := b.ima.Segment(b.bootID)
	if r.BootID == b.bootID && r.Count > 0 && r.Count <= seg.Count {
		seg = measuretest.Cut(seg, r.Count, seg.Count)
	}
	return seg
}

// bootLog is the boot log, where the challenge asks for it.
func (b *box) bootLog(c *attest.Challenge, machine attest.UUID) []byte {
	if !c.WantsBootLog(machine, b.bootID) {
		return nil
	}
	return b.boot.Data
}

// golden are reference values of a machine as it is.
func (b *box) golden(t testing.TB, name string) []byte {
	t.Helper()
	p, err := measurement.Replay(b.ima.Segment("g"), measurement.State{}, b.ima.PCRs.Values(), measurement.Options{})
	must(t, err)
	f, _, err := rim.FromLog(rim.Golden{Name: name, Entries: p.Entries(), PCRs: b.ima.PCRs.Values()})
	must(t, err)
	out, err := f.Encode()
	must(t, err)
	return out
}

// vm is a simulated VM with a guest agent that answers.
type vm struct {
	*box
	uuid  attest.UUID
	name  string
	epoch uint64
}

func newVM(n byte) *vm {
	return &vm{box: newBox(), uuid: attest.UUID{15: n}, name: fmt.Sprintf("vm%d", n), epoch: 1}
}

// host is a simulated host. Its hooks let it lie.
type host struct {
	*box
	t        testing.TB
	name     string
	token    string
	instance byte
	vms      []*vm

	service  func() api.HostService // where its calls go now
	answered map[attest.Nonce]bool  // what it works on, or did

	mu      sync.Mutex
	onVM    func(*attest.VMEvidence)                    // before it is signed
	onEvid  func(*attest.Evidence)                      // after it is signed
	onSend  func(*attest.Evidence) (send bool)          // instead of sending
	onKeys  func([]api.ActivatedKey) []api.ActivatedKey // before secrets go back
	lost    func() bool                                 // whether the answer to a poll does not reach it
	answers []error
}

func newHost(t testing.TB, service func() api.HostService, name string, vms ...*vm) *host {
	return &host{box: newBox(), t: t, name: name, service: service, vms: vms, answered: make(map[attest.Nonce]bool)}
}

func (h *host) id() string { return api.HostID(h.tpm.EKPublic()) }

// enrol says hello and opens the credential.
func (h *host) enrol(ctx context.Context) error {
	hello := api.HostHello{Name: h.name, EK: h.tpm.EKPublic(), AK: h.tpm.AKPublic(), Token: h.token, Instance: []byte{h.instance}}
	for _, v := range h.vms {
		hello.VMs = append(hello.VMs, api.HostVM{UUID: v.uuid, Name: v.name})
	}
	w, err := h.service().Hello(ctx, "", &hello)
	if err != nil {
		return err
	}
	if len(w.Activation) == 0 {
		return nil
	}
	return h.activate(ctx, attest.Nonce{}, w.Activation)
}

func (h *host) activate(ctx context.Context, n attest.Nonce, list []api.Activation) error {
	a := api.Activated{Host: h.id(), Nonce: n}
	for _, act := range list {
		tpm := h.tpm
		for _, v := range h.vms {
			if v.uuid == act.Machine {
				tpm = v.tpm
			}
		}
		secret, err := tpm.Activate(act.CredentialBlob, act.Secret)
		if err == nil {
			a.Items = append(a.Items, api.ActivatedKey{Machine: act.Machine, Secret: secret})
		}
	}
	if h.onKeys != nil {
		a.Items = h.onKeys(a.Items)
	}
	for {
		err := h.service().Activated(ctx, "", &a)
		var no *Answer
		if err == nil || errors.As(err, &no) || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// serve polls and answers until the test ends. When a Verifier is gone it says hello to the next one.
func (h *host) serve() *host {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			p, failed, err := h.service().Poll(ctx, "", h.id(), 10*time.Second)
			if err != nil {
				time.Sleep(20 * time.Millisecond)
				h.instance++
				_ = h.enrol(ctx)
				continue
			}
			if h.lost != nil && len(p.Challenges) > 0 && h.lost() {
				failed()
				continue
			}
			for _, c := range p.Challenges {
				if h.begin(c.Nonce) {
					wg.Go(func() { h.note(h.answer(ctx, c)) })
				}
			}
		}
	})
	h.t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

// begin reports whether a challenge is new.
func (h *host) begin(n attest.Nonce) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.answered[n] {
		return false
	}
	h.answered[n] = true
	return true
}

func (h *host) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = append(h.answers, err)
}

func (h *host) answer(ctx context.Context, c attest.Challenge) error {
	ev := h.evidence(&c)
	if h.onSend != nil && !h.onSend(ev) {
		return nil
	}
	return h.send(ctx, ev)
}

// send delivers an answer as hostd does: again and again, while the Verifier does not answer.
func (h *host) send(ctx context.Context, ev *attest.Evidence) error {
	b, err := ev.Encode()
	if err != nil {
		return err
	}
	for {
		r, err := h.service().Evidence(ctx, "", b)
		var no *Answer
		if err != nil && !errors.As(err, &no) && ctx.Err() == nil && time.Now().Unix() <= ev.Challenge.NotAfter {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil || len(r.Activation) == 0 {
			return err
		}
		return h.activate(ctx, ev.Challenge.Nonce, r.Activation)
	}
}

// evidence makes the answer to a challenge, with live quotes.
func (h *host) evidence(c *attest.Challenge) *attest.Evidence {
	h.mu.Lock()
	defer h.mu.Unlock()
	ev := &attest.Evidence{Version: attest.EvidenceVersion, Challenge: *c}
	if c.Scheme != attest.SchemeHost {
		for _, v := range h.vms {
			if len(c.VMs) == 0 || slices.Contains(c.VMs, v.uuid) {
				ev.VMs = append(ev.VMs, v.evidence(c))
			}
		}
		for _, id := range c.VMs {
			if !slices.ContainsFunc(h.vms, func(v *vm) bool { return v.uuid == id }) {
				ev.VMs = append(ev.VMs, attest.VMEvidence{UUID: id, Status: attest.VMNotRunning})
			}
		}
	}
	slices.SortFunc(ev.VMs, func(a, b attest.VMEvidence) int { return a.UUID.Compare(b.UUID) })
	if h.onVM != nil {
		for i := range ev.VMs {
			h.onVM(&ev.VMs[i])
		}
	}
	items := []attest.Digest{{1}, binding.Item(c.Scheme, c.Nonce, softhost.Body(c.Scheme, ev.VMs)), {2}}
	extra := binding.Round(items)
	ev.Inclusion = binding.Include(items, 1)
	if c.Scheme == attest.SchemeSEPAExact {
		extra, ev.Inclusion = binding.Exact(c.Nonce, ev.VMs[0].QuoteHash), attest.Inclusion{Count: 1}
	}
	h.tpm.Clock += 10
	banks := h.ima.PCRs.Values()
	ev.Host = attest.HostEvidence{ID: h.id(), Quote: h.tpm.Quote(extra[:], banks), AK: h.tpm.AKPublic(), EK: h.tpm.EKPublic(), PCRs: banks,
		IMA: h.since(c.ResumeFor(attest.UUID{})), BootLog: h.bootLog(c, attest.UUID{})}
	if h.onEvid != nil {
		h.onEvid(ev)
	}
	return ev
}

func (v *vm) evidence(c *attest.Challenge) attest.VMEvidence {
	banks := v.ima.PCRs.Values()
	out := attest.VMEvidence{UUID: v.uuid, Name: v.name, Status: attest.VMQuoted, Epoch: v.epoch, EKName: softtpm.Name(v.tpm.EKPublic()), EK: v.tpm.EKPublic(),
		PCRs: banks, IMA: v.since(c.ResumeFor(v.uuid)), BootLog: v.bootLog(c, v.uuid), Agent: attest.AgentInfo{Version: "1", Kernel: "6.1", BootID: v.bootID}}
	if c.Scheme != attest.SchemeHYPA {
		v.tpm.Clock += 10
		n := binding.VMNonce(c.Scheme, c.Nonce, v.uuid)
		out.Quote, out.AK, out.AKName = v.tpm.Quote(n[:], banks), v.tpm.AKPublic(), v.tpm.AKName()
		out.QuoteHash = out.Quote.Hash()
	}
	return out
}

// want holds a result against a state and the codes of its reasons, and shows what it is.
func want(t *testing.T, r appraise.Result, state appraise.State, codes ...appraise.Code) {
	t.Helper()
	var got []appraise.Code
	text := ""
	for _, x := range r.Reasons {
		got = append(got, x.Code)
		text += "\n  " + x.Text
	}
	if r.State != state || !slices.Equal(got, codes) {
		t.Errorf("%q is %s because of %v, want %s because of %v%s", r.Name, r.State, got, state, codes, text)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
