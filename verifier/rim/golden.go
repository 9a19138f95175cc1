package rim

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/eventlog"
)

// Golden describes a machine whose state is to become reference values. The log and the
// PCR values must be verified: what FromLog lists will be trusted.
type Golden struct {
	Name    string // of the reference values
	From    string // of the machine
	Time    time.Time
	Entries iter.Seq[*measurement.Entry] // of the proven log (measurement.Proof.Entries)
	PCRs    []attest.PCRBank             // proven values

	Registers       []uint8  // PCRs to list; nil: 0 to 9
	BootLog         []byte   // the machine's TCG event log, for Events
	Events          []uint8  // PCRs of which the boot events are listed, and not the value
	Exclude         []string // globs of files that are neither listed nor compared
	AllowViolations bool     // list the paths of violations as acceptable
}

// Summary is what FromLog found besides the values.
type Summary struct {
	Files, Excluded int
	Violations      []string // paths at which the golden machine has violations
}

// FromLog makes reference values of a golden machine. It fails if the log has entries
// that cannot be read, since no machine like it could be trusted.
func FromLog(g Golden) (*File, Summary, error) {
	f := &File{Format: Format, Name: g.Name, Created: g.Time, CreatedFrom: g.From, Exclude: slices.Clone(g.Exclude),
		Violations: ViolationsFail, PCRs: bootPCRs(g), IMA: map[string][]string{}}
	var s Summary
	var globs []glob
	for _, e := range g.Exclude {
		x, err := parseGlob(e)
		if err != nil {
			return nil, s, fmt.Errorf("rim: %w", err)
		}
		globs = append(globs, x)
	}
	if err := f.addEvents(g); err != nil {
		return nil, s, err
	}
	for e := range g.Entries {
		if err := f.add(e, globs, &s); err != nil {
			return nil, s, err
		}
	}
	s.Files, s.Violations = len(f.IMA), sorted(s.Violations)
	if g.AllowViolations {
		f.ViolationPaths = slices.DeleteFunc(slices.Clone(s.Violations), func(p string) bool { return checkGlob(p) != nil })
	}
	_, err := NewIndex(f)
	return f, s, err
}

func (f *File) add(e *measurement.Entry, exclude []glob, s *Summary) error {
	switch path := e.PathText(); {
	case !e.Parsed:
		return fmt.Errorf("rim: entry %d of the log, template %q, cannot be read", e.Index, clip(string(e.Template)))
	case e.IsBootAggregate():
	case slices.ContainsFunc(exclude, func(g glob) bool { return g.match(e.Path) }):
		s.Excluded++
	case e.Violation:
		s.Violations = append(s.Violations, path)
	case !slices.Contains(f.IMA[path], e.DigestText()):
		f.IMA[path] = append(f.IMA[path], e.DigestText())
	}
	return nil
}

func bootPCRs(g Golden) map[attest.Alg]map[uint8][]attest.HexBytes {
	registers := g.Registers
	if registers == nil {
		registers = []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	}
	out := map[attest.Alg]map[uint8][]attest.HexBytes{}
	for _, b := range g.PCRs {
		for _, p := range b.PCRs {
			if !slices.Contains(registers, p.Index) || slices.Contains(g.Events, p.Index) || pcrError(b.Alg, p.Index) != nil {
				continue
			}
			if out[b.Alg] == nil {
				out[b.Alg] = map[uint8][]attest.HexBytes{}
			}
			out[b.Alg][p.Index] = []attest.HexBytes{slices.Clone(p.Value)}
		}
	}
	return out
}

// addEvents lists the events of g.Events, in every strong bank where the boot log explains the value.
func (f *File) addEvents(g Golden) error {
	if len(g.Events) == 0 {
		return nil
	}
	log, err := eventlog.Parse(g.BootLog)
	if err != nil {
		return fmt.Errorf("rim: boot events: %w", err)
	}
	f.BootEvents = map[attest.Alg]map[uint8][]attest.HexBytes{}
	for _, i := range g.Events {
		found := false
		for _, b := range g.PCRs {
			if eventError(b.Alg, i) != nil || !log.Explains(b, i) {
				continue
			}
			found = true
			if f.BootEvents[b.Alg] == nil {
				f.BootEvents[b.Alg] = map[uint8][]attest.HexBytes{}
			}
			f.BootEvents[b.Alg][i] = []attest.HexBytes{}
			for _, e := range log.Measured(i) {
				f.BootEvents[b.Alg][i] = append(f.BootEvents[b.Alg][i], slices.Clone(e.ReplayedDigest(b.Alg)))
			}
		}
		if !found {
			return fmt.Errorf("rim: the boot log does not explain PCR %d in any bank that reference values can list", i)
		}
	}
	return nil
}
