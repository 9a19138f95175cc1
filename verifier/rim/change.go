package rim

import (
	"fmt"

	"virt-attest/attest"
	"virt-attest/verifier/internal/changes"
)

// Merge gives reference values that allow what any of files allows. Name, description
// and origin are the first one's; violations fail unless all say otherwise.
func Merge(files ...*File) (*File, error) {
	if len(files) == 0 {
		return nil, fmt.Errorf("rim: nothing to merge")
	}
	out := *files[0]
	out.PCRs, out.BootEvents, out.IMA = nil, nil, map[string][]string{}
	out.Digests, out.Exclude, out.ViolationPaths, out.Keys = nil, nil, nil, nil
	for _, f := range files {
		addBanks(&out.PCRs, f.PCRs)
		addBanks(&out.BootEvents, f.BootEvents)
		for p, d := range f.IMA {
			out.IMA[p] = append(out.IMA[p], d...)
		}
		out.Digests, out.Exclude = append(out.Digests, f.Digests...), append(out.Exclude, f.Exclude...)
		out.ViolationPaths, out.Keys = append(out.ViolationPaths, f.ViolationPaths...), append(out.Keys, f.Keys...)
		if f.Violations != ViolationsWarn {
			out.Violations = ViolationsFail
		}
	}
	out.sort()
	return &out, out.check()
}

// addBanks adds values per bank and PCR to those of out.
func addBanks(out *map[attest.Alg]map[uint8][]attest.HexBytes, banks map[attest.Alg]map[uint8][]attest.HexBytes) {
	for alg, bank := range banks {
		if *out == nil {
			*out = map[attest.Alg]map[uint8][]attest.HexBytes{}
		}
		if (*out)[alg] == nil {
			(*out)[alg] = map[uint8][]attest.HexBytes{}
		}
		for i, v := range bank {
			(*out)[alg][i] = append((*out)[alg][i], v...)
		}
	}
}

// Change is one difference between two Files. What is "ima", "pcr", "boot_event", "digest", "key", "exclude", "violations" or
// "violation_path"; Where a path, or "sha256 4".
type Change = changes.Change

// Diff lists what b allows and a does not (Added), and the reverse, in a fixed order.
func Diff(a, b *File) []Change { return changes.Between(flatten(a), flatten(b)) }

// flatten makes a set of a File's single statements.
func flatten(f *File) map[Change]bool {
	out := map[Change]bool{}
	for what, banks := range map[string]map[attest.Alg]map[uint8][]attest.HexBytes{"pcr": f.PCRs, "boot_event": f.BootEvents} {
		for alg, bank := range banks {
			for i, values := range bank {
				for _, v := range values {
					out[Change{What: what, Where: fmt.Sprintf("%v %d", alg, i), Value: v.String()}] = true
				}
			}
		}
	}
	for _, s := range f.Keys {
		name := s
		if k, _, err := parseKey(s); err == nil {
			name = k.String()
		}
		out[Change{What: "key", Value: name}] = true
	}
	for p, digests := range f.IMA {
		for _, d := range digests {
			out[Change{What: "ima", Where: p, Value: d}] = true
		}
	}
	for what, list := range map[string][]string{"digest": f.Digests, "exclude": f.Exclude, "violation_path": f.ViolationPaths} {
		for _, v := range list {
			out[Change{What: what, Value: v}] = true
		}
	}
	if f.Violations == ViolationsWarn {
		out[Change{What: "violations", Value: ViolationsWarn}] = true
	}
	return out
}
