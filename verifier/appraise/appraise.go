package appraise

import (
	"errors"
	"fmt"
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/link"
)

// Appraise judges the host and every VM of in.Linked. It never fails: what goes wrong is in
// the Results.
func Appraise(in Input) Output {
	out := Output{Host: guarded(&in, attest.UUID{}, in.Host, func() Outcome { return appraiseHost(&in) })}
	for _, vm := range in.Linked.VMs {
		out.VMs = append(out.VMs, guarded(&in, vm.UUID, in.VMs[vm.UUID], func() Outcome { return appraiseVM(&in, vm, out.Host.Result) }))
	}
	return out
}

func appraiseHost(in *Input) Outcome {
	ev, h := &in.Evidence.Host, in.Linked.Host
	c := newCheck(in, LayerHost, in.Host)
	if h.Err != nil {
		c.reasons = append(c.reasons, ReasonOf(h.Err, LayerHost))
		return c.outcome(in, attest.UUID{})
	}
	c.ak, c.quote, c.banks, c.ima, c.bootLog = h.AK, h.Quote, h.Quote.Banks, ev.IMA, ev.BootLog
	c.run()
	return c.outcome(in, attest.UUID{})
}

func appraiseVM(in *Input, vm link.VMLink, host Result) Outcome {
	c := newCheck(in, LayerVM, in.VMs[vm.UUID])
	c.epoch, c.frozen = vm.Epoch, c.frozen || host.State != Trusted
	if in.Evidence.Challenge.Scheme == attest.SchemeSEPAExact && c.epoch == 0 && c.s.Prior.Host == c.host { // nothing signs it, and what was signed before stands
		c.epoch = c.s.Prior.Epoch
	}
	ev := vmEvidence(in.Evidence, vm.UUID)
	if host.State != Trusted {
		c.reasons = append(c.reasons, hostReason(host))
	}
	if err := vm.Err(); err != nil {
		c.unlinked(vm, err, ev.Problem)
		return c.outcome(in, vm.UUID).describe(vm, ev)
	}
	c.ak, c.quote, c.banks, c.ima, c.bootLog, c.agent = vm.AKName, vm.Quote, vm.Banks, ev.IMA, ev.BootLog, ev.Agent.Version
	c.serving = ev.Software
	c.run()
	return c.outcome(in, vm.UUID).describe(vm, ev)
}

// unlinked records why a VM is not shown to run here. What is known to have run in this boot
// still counts, where the host signed that it is the same.
// problem is the host's own word about it, which nothing proves.
func (c *check) unlinked(vm link.VMLink, err error, problem string) {
	layer := LayerLink
	if vm.LinkErr == nil {
		layer = LayerVM
	}
	switch {
	case errors.Is(err, &link.Error{Kind: link.KindHost}): // hostReason has said it
	case errors.Is(err, &link.Error{Kind: link.KindRollback}):
		why := "its host has a record of a later one"
		if problem != "" {
			why = attest.Clean(problem)
		}
		c.rollback(why)
	default:
		r := ReasonOf(err, layer)
		if problem != "" {
			r.Text += "; the host says: " + attest.Clean(problem)
		}
		c.reasons = append(c.reasons, r)
	}
	if vm.Epoch != 0 && vm.Epoch == c.s.Prior.Epoch && c.host == c.s.Prior.Host {
		c.rejudge()
	}
}

// hostReason is why a VM cannot be better than its host; it names the host's first reason.
func hostReason(host Result) Reason {
	r := Reason{Code: CodeHostNotTrusted, Layer: LayerHost, Text: fmt.Sprintf("its host %s is %s", hostName(host), host.State),
		Hint: "A VM is never better than its host: look at the host first."}
	if len(host.Reasons) > 0 {
		first := host.Reasons[0]
		r.Text += ": " + first.Text
		r.PCR, r.Entry, r.Path, r.Digest = first.PCR, first.Entry, first.Path, first.Digest
	}
	r.state = asVM(host.State)
	return r
}

// asVM is the best state that a VM can have on a host with a state.
func asVM(host State) State {
	if host == Rollback {
		return Untrusted
	}
	return host
}

func hostName(host Result) string {
	if host.Name != "" {
		return host.Name
	}
	return host.Host
}

func vmEvidence(ev *attest.Evidence, id attest.UUID) *attest.VMEvidence {
	i := slices.IndexFunc(ev.VMs, func(v attest.VMEvidence) bool { return v.UUID == id })
	if i < 0 {
		return &attest.VMEvidence{UUID: id}
	}
	return &ev.VMs[i]
}

// describe adds what is for display.
func (o Outcome) describe(vm link.VMLink, ev *attest.VMEvidence) Outcome {
	r := &o.Result
	r.EKName, r.Epoch, r.Agent, r.Kernel = vm.EKName, vm.Epoch, ev.Agent.Version, ev.Agent.Kernel
	if r.Name == "" {
		r.Name = ev.Name
	}
	return o
}
