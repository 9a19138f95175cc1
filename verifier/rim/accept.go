package rim

import (
	"fmt"
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
)

// Accepted is one thing that a machine showed and that somebody has decided to allow from now on: a
// file's digest at a path, violations at a path, or a value of a PCR. Exactly one of Digest, Violation and
// PCR is set.
type Accepted struct {
	Path      string       `json:"path,omitempty"`      // as measurement.PathText writes it
	Digest    string       `json:"digest,omitempty"`    // "alg:hex"
	Violation bool         `json:"violation,omitempty"` // the file at Path may be written while it is measured
	PCR       *AcceptedPCR `json:"pcr,omitempty"`
}

// AcceptedPCR is a value of a PCR.
type AcceptedPCR struct {
	Alg   attest.Alg      `json:"alg"`
	Index uint8           `json:"index"`
	Value attest.HexBytes `json:"value"`
}

// Accept gives a File that allows what f allows and items. f is left as it is. What no reference value can
// allow is an error: boot_aggregate, which is always computed; a PCR that proves nothing; a path that no glob can name.
// A PCR whose events are listed keeps them, and gets the value beside them.
func Accept(f *File, items []Accepted) (*File, error) {
	out, err := Merge(f)
	if err != nil {
		return nil, err
	}
	for i, a := range items {
		if err := out.accept(a); err != nil {
			return nil, fmt.Errorf("rim: item %d: %w", i+1, err)
		}
	}
	out.sort()
	if _, err := NewIndex(out); err != nil {
		return nil, err
	}
	return out, nil
}

func (f *File) accept(a Accepted) error {
	set := 0
	for _, on := range []bool{a.Digest != "", a.Violation, a.PCR != nil} {
		if on {
			set++
		}
	}
	switch {
	case set != 1 || (a.PCR == nil) == (a.Path == ""):
		return fmt.Errorf("one of a path with a digest, a path with violations, and a PCR can be accepted")
	case a.Path == measurement.BootAggregateName:
		return fmt.Errorf("boot_aggregate is computed from the boot PCRs and cannot be listed")
	case a.PCR != nil:
		return f.acceptPCR(*a.PCR)
	}
	if _, err := pathKey(a.Path); err != nil {
		return err
	}
	if a.Violation {
		return f.acceptViolation(a.Path)
	}
	if _, err := digestKey(a.Digest); err != nil {
		return err
	}
	if f.IMA == nil {
		f.IMA = map[string][]string{}
	}
	if len(f.IMA[a.Path]) >= MaxPerPath {
		return fmt.Errorf("%s has %d digests already", clip(a.Path), MaxPerPath)
	}
	f.IMA[a.Path] = append(f.IMA[a.Path], a.Digest)
	return nil
}

// acceptViolation names a path among the globs. One with a wildcard in its name would allow others.
func (f *File) acceptViolation(path string) error {
	if err := checkGlob(path); err != nil {
		return err
	}
	if slices.ContainsFunc([]byte(path), func(c byte) bool { return c == '*' || c == '?' }) {
		return fmt.Errorf("path %q has a wildcard in it, which would accept violations at other paths", clip(path))
	}
	f.ViolationPaths = append(f.ViolationPaths, path)
	return nil
}

func (f *File) acceptPCR(p AcceptedPCR) error {
	if err := pcrError(p.Alg, p.Index); err != nil {
		return err
	}
	if p.Alg.Size() == 0 || len(p.Value) != p.Alg.Size() {
		return fmt.Errorf("a value of PCR %d of bank %v has %d bytes, not %d", p.Index, p.Alg, p.Alg.Size(), len(p.Value))
	}
	addBanks(&f.PCRs, map[attest.Alg]map[uint8][]attest.HexBytes{p.Alg: {p.Index: {slices.Clone(p.Value)}}})
	if len(f.PCRs[p.Alg][p.Index]) > MaxPerPCR {
		return fmt.Errorf("PCR %d has %d values already", p.Index, MaxPerPCR)
	}
	return nil
}
