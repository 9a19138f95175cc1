package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
	"virt-attest/sidecar/agentport"
	"virt-attest/sidecar/proxy"
	"virt-attest/sidecar/swtpm"
)

// Handle answers one request.
func (s *Service) Handle(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
	switch op {
	case sidecarproto.OpInfo:
		return answer(s.info(), nil)
	case sidecarproto.OpEK:
		return answer(s.readEK(ctx))
	case sidecarproto.OpPCRs:
		return answer(s.readPCRs(ctx))
	case sidecarproto.OpExpect:
		return nil, s.expect(payload)
	case sidecarproto.OpSoftware:
		return answer(s.software(ctx))
	case sidecarproto.OpAgent:
		return answer(s.relay(ctx, payload))
	case sidecarproto.OpWatch:
		return answer(s.watch(ctx, payload))
	}
	return nil, refuse("unknown request %d", op)
}

func answer(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return channel.Encode(v)
}

func refuse(format string, a ...any) error {
	return &channel.RemoteError{Code: channel.CodeBadRequest, Message: fmt.Sprintf(format, a...)}
}

func (s *Service) info() sidecarproto.Info {
	n := s.VTPM.Counters()
	seq, head := s.Ledger.Head()
	return sidecarproto.Info{
		UUID: s.UUID, Version: s.Version, Epoch: s.Ledger.Epoch(), VTPM: s.VTPM.VTPM(), Agent: s.Agent.Connected(),
		Restarts: n.Restarts, Commands: n.Commands, Refused: n.Refused, Quotes: n.Quotes, StoreHead: head[:], StoreSeq: seq,
		RolledBack: s.Ledger.RolledBack(),
	}
}

// software asks the swtpm that runs. One that has ended meanwhile has no version: its number may be another process's.
func (s *Service) software(ctx context.Context) (out sidecarproto.Software, err error) {
	pid := s.VTPM.Peer()
	if pid == 0 {
		return out, &channel.RemoteError{Code: channel.CodeUnavailable, Message: "swtpm is not running"}
	}
	out.Programs, err = swtpm.Of(ctx, pid)
	if s.VTPM.Peer() != pid {
		return sidecarproto.Software{}, &channel.RemoteError{Code: channel.CodeUnavailable, Message: "swtpm has ended"}
	}
	if err != nil {
		out.Problem = attest.Clean(err.Error())
	}
	return out, nil
}

func (s *Service) expect(payload []byte) error {
	var e sidecarproto.Expect
	if err := channel.Decode(payload, &e); err != nil {
		return refuse("%v", err)
	}
	if len(e.ExtraData) == 0 || len(e.ExtraData) > maxExtra || e.ExpiresIn == 0 || e.ExpiresIn > maxExpire {
		return refuse("%d bytes of extraData for %d s: 1 to %d bytes for 1 to %d s", len(e.ExtraData), e.ExpiresIn, maxExtra, maxExpire)
	}
	return s.Ledger.Expect(e.ExtraData, time.Now().Add(time.Duration(e.ExpiresIn)*time.Second))
}

// relay passes a request on to the guest agent. What the agent itself reports is an answer.
func (s *Service) relay(ctx context.Context, payload []byte) (a sidecarproto.AgentAnswer, err error) {
	var q sidecarproto.Agent
	if err := channel.Decode(payload, &q); err != nil {
		return a, refuse("%v", err)
	}
	timeout := time.Duration(q.TimeoutMS) * time.Millisecond
	if timeout <= 0 || timeout > maxAgent || len(q.Payload) > agentproto.MaxPayload {
		return a, refuse("%d bytes for the agent within %v: at most %d bytes within %v", len(q.Payload), timeout, agentproto.MaxPayload, maxAgent)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a.Payload, err = s.Agent.Request(ctx, q.Op, q.Payload)
	if reported := (*agentport.AgentError)(nil); errors.As(err, &reported) {
		return sidecarproto.AgentAnswer{Error: reported.Error()}, nil
	}
	return a, err
}

// between calls f between two commands of the guest, with errors that tell the requester whose fault it is.
func (s *Service) between(ctx context.Context, f func(proxy.Send) error) error {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	switch err := s.VTPM.Between(ctx, f); {
	case errors.Is(err, proxy.ErrNotRunning):
		return &channel.RemoteError{Code: channel.CodeUnavailable, Message: fmt.Sprintf("%v (it is %s)", err, s.VTPM.VTPM())}
	case errors.Is(err, context.DeadlineExceeded):
		return &channel.RemoteError{Code: channel.CodeTimeout, Message: "the vTPM is busy with a command of the guest"}
	default:
		return err
	}
}
