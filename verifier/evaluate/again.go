package evaluate

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/appraise"
)

// Stored is an Evidence on record that can be judged again.
type Stored struct {
	// Unproven are VMs whose keys are not on record. They were proven when the Evidence came, or were not: nothing
	// tells that now, and Judge leaves them out.
	Unproven []attest.UUID
	ev       *attest.Evidence
	linked   *link.Linked
	id       Identity
	at       time.Time
}

// Reopen verifies an Evidence on record, as it was received, that was judged at a time before, and compares its
// keys with what is on record now. ErrSaved means that it is no answer at all, as it was then.
func Reopen(ev *attest.Evidence, rec Record, at time.Time) (*Stored, error) {
	came := at
	if end := time.Unix(ev.Challenge.NotAfter, 0); came.After(end) {
		came = end // it was judged a moment after it came
	}
	l, err := Link(ev, &ev.Challenge, came)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSaved, err)
	}
	id := Identify(l, ev, rec)
	return &Stored{Unproven: id.Unproven, ev: ev, linked: l, id: id, at: at}, nil
}

// Judge appraises the host and those VMs that have a Subject, as if the Evidence had come at the time that it was judged
// before: results have that time, and expire by it. A Subject's Prior is the state on record now; it must not be
// of a later answer. logs are IMA logs in place of those that came (the host's is that of the zero UUID), boots the boot logs
// of machines that left them out.
func (s *Stored) Judge(subjects Subjects, logs map[attest.UUID]*attest.LogSegment, boots map[attest.UUID][]byte) appraise.Output {
	ev, l := *WithBootLogs(s.ev, boots), *s.linked
	if g := logs[attest.UUID{}]; g != nil {
		ev.Host.IMA = *g
	}
	ev.VMs = slices.Clone(ev.VMs)
	for i := range ev.VMs {
		if g := logs[ev.VMs[i].UUID]; g != nil {
			ev.VMs[i].IMA = *g
		}
	}
	l.VMs = slices.DeleteFunc(slices.Clone(s.linked.VMs), func(v link.VMLink) bool {
		_, wanted := subjects.VMs[v.UUID]
		return !wanted || slices.Contains(s.Unproven, v.UUID)
	})
	return Judge(&ev, &l, s.id, subjects, s.at)
}

// Depends reports whether a result comes from an appraisal that reference values or the policy decide. A machine that did not
// answer, went back to an earlier state or was overtaken by a later answer is what it is by whatever values.
func Depends(r appraise.Result) bool {
	switch r.State {
	case appraise.Trusted, appraise.Untrusted, appraise.Unconfigured, appraise.Pending:
	default:
		return false
	}
	return r.Report != "" && !slices.ContainsFunc(r.Reasons, func(why appraise.Reason) bool {
		return slices.Contains([]appraise.Code{appraise.CodeExpired, appraise.CodeRollback, appraise.CodeVMMissing, appraise.CodeNeverAttested}, why.Code)
	})
}

// NoAnswer reports whether err says that an Evidence answers nothing, which is no fault of the Verifier.
func NoAnswer(err error) bool {
	return errors.Is(err, ErrSaved) || errors.Is(err, attest.ErrMalformed)
}
