package evaluate

import (
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

// Prefix gives the entries 0 to end of a machine's IMA log; the host's ID is the zero UUID.
type Prefix func(machine attest.UUID, bootID string, end uint64) (*attest.LogSegment, error)

// Whole gives ev with whole IMA logs in place of increments, which prefix completes, and with the boot logs that were left out, as
// far as bootLogs has them.
func Whole(ev *attest.Evidence, prefix Prefix, bootLogs BootLogs) (*attest.Evidence, error) {
	left := LeftOut(ev)
	out := *ev
	out.Challenge.Resume = nil
	out.VMs = append([]attest.VMEvidence(nil), ev.VMs...)
	join := func(machine attest.UUID, l *attest.LogSegment, boot *[]byte) error {
		r := attest.Resume{Machine: machine, BootID: l.BootID, Count: l.From}
		if err := joinIMA(machine, l, prefix); err != nil {
			return err
		}
		if id, ok := left[machine]; ok {
			b, err := bootLogs(machine, id)
			if err != nil {
				return err
			}
			*boot, r.Boot = b, len(b) > 0
		}
		if r.Count > 0 || r.Boot {
			out.Challenge.Resume = append(out.Challenge.Resume, r)
		}
		return nil
	}
	if err := join(attest.UUID{}, &out.Host.IMA, &out.Host.BootLog); err != nil {
		return nil, err
	}
	for i := range out.VMs {
		v := &out.VMs[i]
		if err := join(v.UUID, &v.IMA, &v.BootLog); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

func joinIMA(machine attest.UUID, l *attest.LogSegment, prefix Prefix) error {
	if l.From == 0 {
		return nil
	}
	before, err := prefix(machine, l.BootID, l.From)
	if err != nil {
		return err
	}
	if before.Count != l.From || l.Count > 0 && before.TemplateHash != l.TemplateHash {
		return fmt.Errorf("evaluate: the log of %v does not go on where it ended", machine)
	}
	*l = attest.LogSegment{BootID: l.BootID, TemplateHash: before.TemplateHash, Count: l.From + l.Count, Data: append(before.Data, l.Data...)}
	return nil
}

// Received gives back what the host sent, of what Whole made: the logs from where the challenge's
// Resume says on, and no boot logs where it says that they are on record.
func Received(whole *attest.Evidence) (*attest.Evidence, error) {
	out := *whole
	out.VMs = append([]attest.VMEvidence(nil), whole.VMs...)
	split := func(machine attest.UUID, l *attest.LogSegment, boot *[]byte) error {
		r := whole.Challenge.ResumeFor(machine)
		if r.Boot && r.BootID == l.BootID {
			*boot = nil
		}
		if r.Count == 0 || r.BootID != l.BootID || l.From != 0 {
			return nil
		}
		at := 0
		for i := uint64(0); i < r.Count; i++ {
			n, err := measurement.NextEntry(l.Data[at:], l.TemplateHash.Size())
			if err != nil || i >= l.Count {
				return fmt.Errorf("%w: the IMA log of %v is shorter than the challenge says", attest.ErrMalformed, machine)
			}
			at += n
		}
		l.From, l.Count, l.Data = r.Count, l.Count-r.Count, l.Data[at:]
		return nil
	}
	if err := split(attest.UUID{}, &out.Host.IMA, &out.Host.BootLog); err != nil {
		return nil, err
	}
	for i := range out.VMs {
		v := &out.VMs[i]
		if err := split(v.UUID, &v.IMA, &v.BootLog); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// Anchors are the keys that a saved Evidence is believed by. They come from somewhere else than
// the file: from the Verifier's own records, or from whoever enrolled the machines.
type Anchors struct {
	HostEK string      // SHA-256 of the host's endorsement key (TPMT_PUBLIC), hexadecimal, as api.Host shows it
	HostAK attest.Name // of the host's attestation key
	VTPMs  []VTPM      // endorsement and attestation keys of VMs; Host is not looked at
}

// References are reference values by machine: a host's ID or a VM's UUID.
type References map[string]rim.Set

// ErrSaved says that a file holds no answer to the challenge that it says it answers.
var ErrSaved = errors.New("evaluate: not a verifiable answer")

// VerifySaved judges a saved Evidence (with whole logs, encoded) as the service did when it came,
// without anything that the service knew besides anchors and reference values. A machine
// whose keys are not among the anchors is not trusted. A file shows what was true when the challenge was
// answered, and the challenge's NotAfter is the only witness of when that was: Result.Time is
// not later than it.
func VerifySaved(encoded []byte, anchors Anchors, refs References, policy appraise.Policy, now time.Time) (*api.Report, error) {
	whole, err := attest.DecodeEvidence(encoded)
	if err != nil {
		return nil, err
	}
	ev, err := Received(whole)
	if err != nil {
		return nil, err
	}
	if end := time.Unix(ev.Challenge.NotAfter, 0); now.After(end) {
		now = end
	}
	l, err := Link(ev, &ev.Challenge, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSaved, err)
	}
	id := Identify(l, ev, anchors.record(ev))
	for _, vm := range id.Unproven {
		v, _ := l.VM(vm)
		id.Prove(v, ev.Host.ID, false)
	}
	s := Subjects{Host: appraise.Subject{RIMs: refs[ev.Host.ID], Policy: policy}, VMs: make(map[attest.UUID]appraise.Subject)}
	for _, v := range l.VMs {
		s.VMs[v.UUID] = appraise.Subject{RIMs: refs[v.UUID.String()], Policy: policy}
	}
	return Report(&ev.Challenge, Judge(whole, l, id, s, now)), nil
}

func (a Anchors) record(ev *attest.Evidence) Record {
	rec := Record{Approved: a.HostEK != "" && a.HostEK == api.EKSHA256(ev.Host.EK)}
	if rec.Approved {
		rec.HostAK = a.HostAK
	}
	for _, v := range a.VTPMs {
		v.Host = ev.Host.ID
		rec.VTPMs = append(rec.VTPMs, v)
	}
	return rec
}
