package evidence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/verifier/host/sidecars"
)

// logTime is how many timeouts the whole of a VM's log may take: a guest that hands it out byte by byte
// is cut off.
const logTime = 3

// aboutAge is how long an agent's word about itself is taken for new.
const aboutAge = 10 * time.Second

// imaLog takes the guest's IMA log from where the Verifier's knowledge ends.
func (a *Answer) imaLog(ctx context.Context) {
	ctx, cancel := a.logContext(ctx)
	defer cancel()
	resume := a.ch.ResumeFor(a.VM.UUID)
	seg := attest.LogSegment{BootID: resume.BootID, From: resume.Count}
	for more, first := true, true; more; first = false {
		var k agentproto.LogChunk
		err := a.piece(ctx, agentproto.OpIMA, agentproto.Log{BootID: seg.BootID, From: seg.From + seg.Count}, &k)
		if err == nil && first && endsBefore(&seg, &k) {
			seg.From, seg.TemplateHash = 0, k.TemplateHash
			continue
		}
		if err == nil {
			err = appendIMA(&seg, &k, first, a.logMax)
		}
		if err != nil {
			a.problem(fmt.Errorf("IMA log: %w", err))
			break
		}
		more = k.More && k.Count > 0
	}
	if seg.TemplateHash != 0 { // at least one piece came
		a.VM.IMA = seg
	}
	a.step("the VM's IMA log came", "from", seg.From, "entries", seg.Count, "bytes", len(seg.Data))
}

// endsBefore says that the guest's list is shorter than the Verifier knows it, in the same boot: an earlier state of
// the VM was brought back, which the whole list shows.
func endsBefore(seg *attest.LogSegment, k *agentproto.LogChunk) bool {
	return k.BootID == seg.BootID && k.From > 0 && k.From < seg.From && k.Count == 0 && k.TemplateHash.Size() != 0
}

var errChunk = errors.New("the guest agent sent a piece that does not fit")

// appendIMA adds a piece that continues seg. The first one may begin anew at entry 0, which another
// boot than the Verifier knows does.
func appendIMA(seg *attest.LogSegment, k *agentproto.LogChunk, first bool, limit int) error {
	if len(k.Data) > agentproto.MaxChunk || k.Count > uint64(len(k.Data)) || (k.Count == 0) != (len(k.Data) == 0) ||
		k.TemplateHash.Size() == 0 || attest.Clean(k.BootID) != k.BootID {
		return errChunk
	}
	switch {
	case first && (k.BootID == seg.BootID && k.From == seg.From || k.From == 0):
		seg.BootID, seg.From, seg.TemplateHash = k.BootID, k.From, k.TemplateHash
	case first || k.BootID != seg.BootID || k.From != seg.From+seg.Count || k.TemplateHash != seg.TemplateHash:
		return errChunk
	}
	if len(seg.Data)+len(k.Data) > limit {
		return fmt.Errorf("over %d bytes, the rest is left out", limit)
	}
	seg.Data = append(seg.Data, k.Data...)
	seg.Count += k.Count
	return nil
}

// bootLog takes the guest's TCG event log, whole.
func (a *Answer) bootLog(ctx context.Context) {
	ctx, cancel := a.logContext(ctx)
	defer cancel()
	var log []byte
	for more := true; more; {
		var k agentproto.LogChunk
		err := a.piece(ctx, agentproto.OpBootLog, agentproto.Log{From: uint64(len(log))}, &k)
		switch {
		case err != nil:
		case k.From != uint64(len(log)) || k.Count != uint64(len(k.Data)) || len(k.Data) > agentproto.MaxChunk:
			err = errChunk
		case len(log)+len(k.Data) > min(attest.MaxBootLog, a.logMax):
			err = fmt.Errorf("over %d bytes", min(attest.MaxBootLog, a.logMax))
		}
		if err != nil {
			a.problem(fmt.Errorf("boot log: %w", err))
			return
		}
		log = append(log, k.Data...)
		more = k.More && k.Count > 0
	}
	a.VM.BootLog = log
}

// about asks the agent who it is, unless it has said so a moment ago in the same boot.
func (a *Answer) about(ctx context.Context) {
	fresh := time.Since(a.id.agentAt) < aboutAge && (a.VM.IMA.BootID == "" || a.VM.IMA.BootID == a.id.agent.BootID)
	if a.VM.Status == attest.VMQuoted && !fresh {
		var h agentproto.Hello
		if err := a.piece(ctx, agentproto.OpHello, nil, &h); err != nil {
			a.problem(err)
			return
		}
		a.id.agent = attest.AgentInfo{Version: attest.Clean(h.Version), Kernel: attest.Clean(h.Kernel), BootID: attest.Clean(h.BootID)}
		a.id.agentAt = time.Now()
	}
	if a.VM.Status == attest.VMQuoted {
		a.VM.Agent = a.id.agent
	}
}

// software asks the sidecar what serves the vTPM, once for each power-on: a swtpm that was replaced
// comes with a new one. Evidence without an answer names none, which only a policy that asks for versions minds.
func (a *Answer) software(ctx context.Context) {
	if a.id.ek == nil {
		return
	}
	if a.VM.Software = a.id.software; a.VM.Software != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, a.c.Timeout)
	defer cancel()
	s, err := a.conn.Software(ctx)
	if err != nil {
		a.step("the sidecar does not say what serves the VM", "error", err)
		return
	}
	if a.VM.Software = s.Programs; s.Problem == "" {
		a.id.software = s.Programs
	} else {
		a.step("the sidecar does not say all of what serves the VM", "reason", s.Problem)
	}
}

// logContext bounds the time for a log; it never lasts longer than the challenge.
func (a *Answer) logContext(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(logTime * a.c.Timeout)
	if last := time.Unix(a.ch.NotAfter, 0); last.Before(end) {
		end = last
	}
	return context.WithDeadline(ctx, end)
}

// piece makes one request to the agent. After one that failed, no other follows: a stuck guest
// costs one timeout, not one per kind of log.
func (a *Answer) piece(ctx context.Context, op uint8, in, out any) error {
	if a.silent {
		return sidecars.ErrAgent
	}
	ctx, cancel := context.WithTimeout(ctx, a.c.Timeout)
	defer cancel()
	err := a.conn.Agent(ctx, op, in, out)
	a.silent = err != nil
	return err
}
