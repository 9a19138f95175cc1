package inspect

import (
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/api"
	"virt-attest/verifier/rim"
)

// Verdicts of a PCR.
const (
	OK          = "ok"
	Mismatch    = "mismatch"
	Replayed    = "replayed" // the IMA log explains it
	NotCompared = "not-compared"
	NotQuoted   = "not-quoted" // reference values name it, and no quote covers it
)

// PCRs gives each quoted PCR, and those that reference values name and nothing quotes. With replayed the IMA
// log explains PCR 10.
func PCRs(quoted []attest.PCRBank, set rim.Set, replayed bool) []api.PCRState {
	out := []api.PCRState{}
	for _, b := range quoted {
		for _, p := range b.PCRs {
			out = append(out, register(b.Alg, p.Index, p.Value, set, replayed))
		}
		out = append(out, missing(b.Alg, b, set)...)
	}
	for _, alg := range set.Banks() {
		if _, ok := attest.Bank(quoted, alg); !ok {
			out = append(out, missing(alg, attest.PCRBank{}, set)...)
		}
	}
	slices.SortFunc(out, func(a, b api.PCRState) int {
		if a.Alg != b.Alg {
			return int(a.Alg) - int(b.Alg)
		}
		return int(a.Index) - int(b.Index)
	})
	return out
}

func register(alg attest.Alg, index uint8, value []byte, set rim.Set, replayed bool) api.PCRState {
	ok, listed, want := set.PCR(alg, index, value)
	s := api.PCRState{Alg: alg, Index: index, Use: Use(index), Quoted: value, Expected: append([]attest.HexBytes{}, want...), Verdict: NotCompared}
	switch {
	case listed && ok:
		s.Verdict = OK
	case listed:
		s.Verdict = Mismatch
	case index == measurement.IMAPCR && replayed:
		s.Verdict = Replayed
	}
	return s
}

func missing(alg attest.Alg, b attest.PCRBank, set rim.Set) []api.PCRState {
	var out []api.PCRState
	for _, i := range set.PCRs(alg) {
		if b.Get(i) == nil {
			_, _, want := set.PCR(alg, i, nil)
			out = append(out, api.PCRState{Alg: alg, Index: i, Use: Use(i), Quoted: attest.HexBytes{}, Expected: append([]attest.HexBytes{}, want...), Verdict: NotQuoted})
		}
	}
	return out
}

// Use says what is measured into a PCR (TCG PC Client Platform Firmware Profile, section 3.3.4; Linux for 8 to 10).
func Use(index uint8) string {
	uses := []string{"firmware code", "firmware configuration", "option ROM code", "option ROM configuration", "boot loader code",
		"boot loader configuration, partition table", "vendor's own", "Secure Boot policy", "kernel command line, boot loader commands", "kernel, initramfs",
		"IMA: files that were run or read as root"}
	if i := int(index); i < len(uses) {
		return uses[i]
	}
	switch {
	case index == 16:
		return "debugging, resettable"
	case index == 23:
		return "applications, resettable"
	case index >= 17:
		return "dynamic root of trust"
	}
	return "operating system"
}
