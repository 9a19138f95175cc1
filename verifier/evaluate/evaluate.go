package evaluate

import (
	"bytes"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/attest/verify"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Link verifies that ev answers want: signatures, nonce, binding of the layers. An error means
// that it is no answer at all.
func Link(ev *attest.Evidence, want *attest.Challenge, now time.Time) (*link.Linked, error) {
	return verify.Evidence(ev, want, now)
}

// Subjects are what the caller knows of the machines, besides their identity.
type Subjects struct {
	Host   appraise.Subject
	VMs    map[attest.UUID]appraise.Subject
	Issued time.Time // when the challenge was sent, by the Verifier's clock; zero: unknown (appraise.Input)
}

// Judge appraises what is linked. It gives one Outcome for the host and one for each VM of l.
func Judge(ev *attest.Evidence, l *link.Linked, id Identity, s Subjects, now time.Time) appraise.Output {
	in := appraise.Input{Evidence: ev, Linked: l, Now: now, Issued: s.Issued, Host: s.Host, VMs: make(map[attest.UUID]appraise.Subject, len(l.VMs))}
	in.Host.Known = append(in.Host.Known, id.Host...)
	for _, v := range l.VMs {
		sub := s.VMs[v.UUID]
		sub.Known = append(sub.Known, id.VMs[v.UUID]...)
		in.VMs[v.UUID] = sub
	}
	return appraise.Appraise(in)
}

// Report makes the report of an appraisal.
func Report(c *attest.Challenge, out appraise.Output) *api.Report {
	r := &api.Report{ID: c.Nonce.String(), Scheme: c.Scheme, Host: listed(out.Host.Result), VMs: []appraise.Result{}, Steps: []api.Step{}}
	for _, o := range out.VMs {
		r.VMs = append(r.VMs, listed(o.Result))
	}
	return r
}

// listed makes "no reasons" an empty list, which programs read more easily than none.
func listed(r appraise.Result) appraise.Result {
	if r.Reasons == nil {
		r.Reasons = []appraise.Reason{}
	}
	return r
}

// Failed makes the report of a challenge to which no answer came that could be judged: every
// machine has the one Reason. names gives VMs and the host (zero UUID) their display names.
func Failed(c *attest.Challenge, why appraise.Reason, names map[attest.UUID]string, now time.Time, validFor time.Duration) *api.Report {
	result := func(id attest.UUID) appraise.Result {
		return appraise.Result{UUID: id, Name: names[id], Host: c.Host, State: appraise.Decide([]appraise.Reason{why}), Reasons: []appraise.Reason{why},
			Scheme: c.Scheme, Time: now, Expires: now.Add(validFor), Report: c.Nonce.String()}
	}
	r := &api.Report{ID: c.Nonce.String(), Scheme: c.Scheme, Host: result(attest.UUID{}), VMs: []appraise.Result{}, Steps: []api.Step{}}
	for _, id := range c.VMs {
		r.VMs = append(r.VMs, result(id))
	}
	return r
}

// Later reports whether state b of a machine is from a later moment than a, both encoded by
// appraise.EncodeMachine: answers may overtake each other. What cannot be read is never later.
func Later(a, b []byte) bool {
	x, err1 := appraise.DecodeMachine(a)
	y, err2 := appraise.DecodeMachine(b)
	if err1 != nil || err2 != nil || len(a) == 0 {
		return false
	}
	if p, q := x.Counters, y.Counters; p != nil && q != nil && bytes.Equal(p.AK, q.AK) {
		if p.Reset != q.Reset {
			return q.Reset > p.Reset
		}
		return q.Clock > p.Clock
	}
	if x.Epoch != y.Epoch {
		return y.Epoch > x.Epoch
	}
	return x.Replay.BootID == y.Replay.BootID && y.Replay.Count > x.Replay.Count
}

// Current gives a result as it counts at now: a verdict that has expired is STALE, and a VM is
// never better than what is known of its host. Only what is TRUSTED changes.
func Current(r, host appraise.Result, now time.Time) appraise.Result {
	if r.State != appraise.Trusted {
		return r
	}
	if !now.Before(r.Expires) {
		r.State = appraise.Stale
		r.Reasons = []appraise.Reason{{Code: appraise.CodeExpired, Layer: appraise.LayerVerifier,
			Text: "the verdict has expired at " + r.Expires.UTC().Format(time.RFC3339), Hint: "Attest the machine again."}}
		return r
	}
	if r.UUID == (attest.UUID{}) {
		return r
	}
	if h := Current(host, host, now); h.State != appraise.Trusted {
		r.State, r.Reasons = asVM(h.State), []appraise.Reason{hostReason(h)}
	}
	return r
}

// asVM is the best state that a VM has on a host with a state.
func asVM(host appraise.State) appraise.State {
	switch host {
	case appraise.Rollback:
		return appraise.Untrusted
	case "": // the host was never attested, or was forgotten
		return appraise.Pending
	}
	return host
}

func hostReason(h appraise.Result) appraise.Reason {
	name := h.Name
	if name == "" {
		name = h.Host
	}
	why := appraise.Reason{Code: appraise.CodeHostNotTrusted, Layer: appraise.LayerHost, Text: "nothing is known of its host",
		Hint: "A VM is never better than its host: look at the host first."}
	if h.State == "" {
		return why
	}
	why.Text = "since then its host " + name + " is " + string(h.State)
	if len(h.Reasons) > 0 {
		first := h.Reasons[0]
		why.Text += ": " + first.Text
		why.PCR, why.Entry, why.Path, why.Digest = first.PCR, first.Entry, first.Path, first.Digest
	}
	return why
}

// Outdated gives a result as it counts at now where what it was appraised by has changed since: TRUSTED reads PENDING
// until it was judged again.
func Outdated(r appraise.Result, now time.Time) appraise.Result {
	if r.State != appraise.Trusted || !now.Before(r.Expires) {
		return r
	}
	r.State = appraise.Pending
	r.Reasons = []appraise.Reason{{Code: appraise.CodeNoReference, Layer: appraise.LayerVerifier,
		Text: "reference values or the policy have changed since the verdict was made", Hint: "It is judged again by the evidence on record; if that is not kept, attest the machine."}}
	return r
}
