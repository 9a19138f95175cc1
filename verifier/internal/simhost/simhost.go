// Package simhost is a host with VMs in software, for tests of the Verifier: it enrols, waits for challenges and
// answers them as hostd does, over whatever reaches the Verifier. Every machine has a TPM of internal/softtpm and
// logs of internal/measuretest. A test changes a machine before it answers, or has a hook lie.
//
//	h := simhost.New(t, client, "host-1", simhost.NewVM(1))
//	err := h.Enrol(ctx)
//	h.Serve()
//
// No program may import it.
package simhost

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// Verifier is what a host calls; *api.Client is one.
type Verifier interface {
	Hello(ctx context.Context, h api.HostHello) (*api.HostWelcome, error)
	Poll(ctx context.Context, r api.PollRequest) (*api.Poll, error)
	Evidence(ctx context.Context, ev *attest.Evidence) (*api.EvidenceReply, error)
	Activated(ctx context.Context, a api.Activated) error
}

// retry is how long a host waits after a poll that failed.
const retry = 20 * time.Millisecond

// Host is a simulated host. Its hooks let it lie; those that are nil do nothing.
type Host struct {
	*Box
	Name     string
	Token    string // a secret for enrolling, if any
	EKCert   []byte // X.509, DER, if any
	Instance byte   // of the hostd that runs
	VMs      []*VM

	Mu     sync.Mutex                                  // held while Evidence is made
	OnVM   func(*attest.VMEvidence)                    // before it is signed
	OnEvid func(*attest.Evidence)                      // after it is signed
	OnSend func(*attest.Evidence) (send bool)          // instead of sending
	OnKeys func([]api.ActivatedKey) []api.ActivatedKey // before secrets go back
	OnAway func(context.Context)                       // after a poll that failed

	t        testing.TB
	verifier Verifier
	answered map[attest.Nonce]bool // what it works on, or did
}

// New makes a host that has not said hello yet.
func New(t testing.TB, v Verifier, name string, vms ...*VM) *Host {
	return &Host{Box: NewBox(), Name: name, VMs: vms, t: t, verifier: v, answered: make(map[attest.Nonce]bool)}
}

// ID is the name that the host's EK gives it.
func (h *Host) ID() string { return api.HostID(h.TPM.EKPublic()) }

// Enrol says hello and opens the credential.
func (h *Host) Enrol(ctx context.Context) error {
	hello := api.HostHello{Name: h.Name, EK: h.TPM.EKPublic(), EKCert: h.EKCert, AK: h.TPM.AKPublic(), Token: h.Token, Instance: []byte{h.Instance}}
	for _, v := range h.VMs {
		hello.VMs = append(hello.VMs, api.HostVM{UUID: v.UUID, Name: v.Name})
	}
	w, err := h.verifier.Hello(ctx, hello)
	if err != nil || len(w.Activation) == 0 {
		return err
	}
	return h.Activate(ctx, attest.Nonce{}, w.Activation)
}

// Activate opens credentials, each by the TPM of its machine, and sends back what they hold.
func (h *Host) Activate(ctx context.Context, n attest.Nonce, list []api.Activation) error {
	a := api.Activated{Host: h.ID(), Nonce: n}
	for _, act := range list {
		tpm := h.TPM
		if i := slices.IndexFunc(h.VMs, func(v *VM) bool { return v.UUID == act.Machine }); i >= 0 {
			tpm = h.VMs[i].TPM
		}
		secret, err := tpm.Activate(act.CredentialBlob, act.Secret)
		if err == nil {
			a.Items = append(a.Items, api.ActivatedKey{Machine: act.Machine, Secret: secret})
		}
	}
	if h.OnKeys != nil {
		a.Items = h.OnKeys(a.Items)
	}
	return h.verifier.Activated(ctx, a)
}

// Serve polls and answers until the test ends.
func (h *Host) Serve() *Host {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			p, err := h.verifier.Poll(ctx, api.PollRequest{Host: h.ID(), Wait: 10 * time.Second})
			if err != nil {
				h.away(ctx)
				continue
			}
			for _, c := range p.Challenges {
				if h.begin(c.Nonce) {
					wg.Go(func() { _ = h.Answer(ctx, c) })
				}
			}
		}
	})
	h.t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

func (h *Host) away(ctx context.Context) {
	time.Sleep(retry)
	if h.OnAway != nil {
		h.OnAway(ctx)
	}
}

// begin reports whether a challenge is new.
func (h *Host) begin(n attest.Nonce) bool {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	if h.answered[n] {
		return false
	}
	h.answered[n] = true
	return true
}

// Answer makes the answer to a challenge and sends it, unless OnSend says otherwise.
func (h *Host) Answer(ctx context.Context, c attest.Challenge) error {
	ev := h.Evidence(&c)
	if h.OnSend != nil && !h.OnSend(ev) {
		return nil
	}
	return h.Send(ctx, ev)
}

// Send delivers an answer and opens the credentials that come back.
func (h *Host) Send(ctx context.Context, ev *attest.Evidence) error {
	r, err := h.verifier.Evidence(ctx, ev)
	if err != nil || len(r.Activation) == 0 {
		return err
	}
	return h.Activate(ctx, ev.Challenge.Nonce, r.Activation)
}
