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

// Second is a second judgement of an Evidence.
type Second struct {
	Linked *link.Linked
	Output appraise.Output
	// Unproven are VMs whose keys are not on record. They were proven when the Evidence came, or were not: nothing
	// tells that now, and what Output says about them counts for nothing.
	Unproven []attest.UUID
}

// Again judges an Evidence that was judged at a time before, with whole logs (Whole), by what is on record and
// the subjects of now. The results have that time, and expire by it.
//
// A Subject's Prior is the state that is on record now. It must not be of a later answer than this one.
func Again(whole *attest.Evidence, rec Record, s Subjects, at time.Time) (*Second, error) {
	came := at
	if end := time.Unix(whole.Challenge.NotAfter, 0); came.After(end) {
		came = end // it was judged a moment after it came
	}
	ev, err := Received(whole)
	if err != nil {
		return nil, err
	}
	l, err := Link(ev, &ev.Challenge, came)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSaved, err)
	}
	id := Identify(l, ev, rec)
	return &Second{Linked: l, Unproven: id.Unproven, Output: Judge(whole, l, id, s, at)}, nil
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
