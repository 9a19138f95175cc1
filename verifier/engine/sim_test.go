package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/internal/simhost"
)

type (
	vm   = simhost.VM
	host = simhost.Host
)

func newBox() *simhost.Box { return simhost.NewBox() }

func newVM(n byte) *vm { return simhost.NewVM(n) }

// newHost makes a host that says hello again when a Verifier is gone: to the next one.
func newHost(t testing.TB, service func() api.HostService, name string, vms ...*vm) *host {
	h := simhost.New(t, calls{service}, name, vms...)
	h.OnAway = func(ctx context.Context) {
		h.Instance++
		_ = h.Enrol(ctx)
	}
	return h
}

// calls are a host's calls, to the replica that it reaches at that moment.
type calls struct{ service func() api.HostService }

func (c calls) Hello(ctx context.Context, h api.HostHello) (*api.HostWelcome, error) {
	return c.service().Hello(ctx, "", &h)
}

func (c calls) Poll(ctx context.Context, r api.PollRequest) (*api.Poll, error) {
	p, _, err := c.service().Poll(ctx, "", r)
	return p, err
}

// Evidence is sent as hostd does: again and again, while the Verifier does not answer.
func (c calls) Evidence(ctx context.Context, ev *attest.Evidence) (reply *api.EvidenceReply, err error) {
	b, err := ev.Encode()
	if err != nil {
		return nil, err
	}
	err = persist(func() (again bool, err error) {
		reply, err = c.service().Evidence(ctx, "", b)
		return ctx.Err() == nil && time.Now().Unix() <= ev.Challenge.NotAfter, err
	})
	return reply, err
}

func (c calls) Activated(ctx context.Context, a api.Activated) error {
	return persist(func() (again bool, err error) {
		err = c.service().Activated(ctx, "", &a)
		return ctx.Err() == nil, err
	})
}

// persist calls until there is an answer, which a refusal is too, or no sense in another try.
func persist(call func() (again bool, err error)) error {
	for {
		again, err := call()
		var no *Answer
		if err == nil || errors.As(err, &no) || !again {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func want(t *testing.T, r appraise.Result, state appraise.State, codes ...appraise.Code) {
	t.Helper()
	simhost.Want(t, r, state, codes...)
}

func must(t testing.TB, err error) {
	t.Helper()
	simhost.Must(t, err)
}
