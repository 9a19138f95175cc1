package eventlog

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"virt-attest/attest"
)

// Rule allows events: those of any of Types in any of PCRs. With Digests only those whose digest is one
// of them.
type Rule struct {
	PCRs    []uint8
	Types   []Type
	Digests []attest.HexBytes // of any strong bank; empty: every digest
}

// Rules are what a boot log may hold. What no Rule allows is a finding.
type Rules struct {
	open   [attest.PCRCount]map[Type]bool
	listed [attest.PCRCount]map[Type]map[string]bool
}

// NewRules makes Rules of which any may allow an event.
func NewRules(list ...Rule) *Rules {
	out := &Rules{}
	for _, r := range list {
		for _, p := range r.PCRs {
			if p < attest.PCRCount {
				out.allow(p, r)
			}
		}
	}
	return out
}

func (r *Rules) allow(pcr uint8, rule Rule) {
	if r.open[pcr] == nil {
		r.open[pcr], r.listed[pcr] = map[Type]bool{}, map[Type]map[string]bool{}
	}
	for _, t := range rule.Types {
		if len(rule.Digests) == 0 {
			r.open[pcr][t] = true
			continue
		}
		if r.listed[pcr][t] == nil {
			r.listed[pcr][t] = map[string]bool{}
		}
		for _, d := range rule.Digests {
			r.listed[pcr][t][string(d)] = true
		}
	}
}

// Unlisted gives the events that no Rule allows, at most MaxAnomalies. Separators and EV_NO_ACTION are
// left to Anomalies. A type is what the log says and nothing proves it; a digest counts only in a bank
// that quoted holds, since the replay proves it there. Rules say what a firmware of a kind writes
// and so notice a change of it; what may boot is said by digests, here or in reference values.
func (r *Rules) Unlisted(l *Log, quoted []attest.PCRBank) []*Event {
	var out []*Event
	for i := range l.events {
		e := &l.events[i]
		fixed := e.typ == NoAction || e.typ == Separator && e.pcr < 8
		if fixed || e.pcr > LastPCR || r.open[e.pcr][e.typ] || e.among(r.listed[e.pcr][e.typ], quoted) {
			continue
		}
		if out = append(out, e); len(out) == MaxAnomalies {
			break
		}
	}
	return out
}

// among reports whether the event's digest in a bank that quoted proves is one of set.
func (e *Event) among(set map[string]bool, quoted []attest.PCRBank) bool {
	if len(set) == 0 {
		return false
	}
	for i, a := range e.log.algs {
		if _, ok := attest.Bank(quoted, a.id); ok && a.id.Strong() && set[string(e.digests[i])] {
			return true
		}
	}
	return false
}

// ParseType reads a type's name, such as EV_IPL, or the number of one that has no name here, such as
// 0x80000fff.
func ParseType(name string) (Type, error) {
	for t, k := range kinds {
		if k.name == name {
			return t, nil
		}
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(name, "0x"), 16, 32)
	if t := Type(n); err == nil && t.text() == name {
		return t, nil
	}
	return 0, fmt.Errorf("event type %.40q is not known: write it as the TCG profile does, such as EV_IPL, or 0x and 8 digits if it has no name", name)
}

// MarshalText gives what ParseType reads.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.text()), nil }

func (t Type) text() string {
	if k, ok := kinds[t]; ok {
		return k.name
	}
	return fmt.Sprintf("0x%08x", uint32(t))
}

// Named gives a set of Rules by its name:
//
//	qemu-seabios  what SeaBIOS of a QEMU guest measures: SMBIOS, option ROMs, boot sector
//	qemu-ovmf     what OVMF of a QEMU guest measures, with Secure Boot or without
//	linux         what shim, GRUB, systemd-boot and the kernel's EFI stub measure after either
//	pc            every type at every PCR where the TCG PC Client profile has it
func Named(name string) ([]Rule, bool) {
	r, ok := named()[name]
	return r, ok
}

// Names lists the names that Named knows.
func Names() []string { return slices.Sorted(maps.Keys(named())) }

func named() map[string][]Rule {
	return map[string][]Rule{
		"qemu-seabios": {
			{PCRs: []uint8{1}, Types: []Type{EventTag}},
			{PCRs: []uint8{2}, Types: []Type{Action, EventTag}},
			{PCRs: []uint8{4}, Types: []Type{Action, IPL}},
			{PCRs: []uint8{5}, Types: []Type{IPLPartitionData}},
		},
		"qemu-ovmf": {
			{PCRs: []uint8{0}, Types: []Type{CRTMVersion, EFIFirmwareBlob, EFIFirmwareBlob2}},
			{PCRs: []uint8{1}, Types: []Type{EFIVariableBoot, EFIVariableBoot2, EFIHandoffTables, EFIHandoffTables2, PlatformConfigFlags}},
			{PCRs: []uint8{2}, Types: []Type{EFIBootDriver, EFIRuntimeDriver, EFIBootApplication}},
			{PCRs: []uint8{4}, Types: []Type{EFIAction, EFIBootApplication}},
			{PCRs: []uint8{5}, Types: []Type{EFIAction, EFIGPT, EFIGPT2}},
			{PCRs: []uint8{7}, Types: []Type{EFIVariableDriver, EFIVariableAuthority}},
		},
		"linux": {
			{PCRs: []uint8{4}, Types: []Type{EFIBootApplication}},
			{PCRs: []uint8{7}, Types: []Type{EFIVariableAuthority}},
			{PCRs: []uint8{8, 9}, Types: []Type{IPL, EventTag}},
		},
		"pc": profile(),
	}
}

// profile makes a Rule of each type of the profile.
func profile() []Rule {
	out := []Rule{{PCRs: []uint8{8, 9}, Types: []Type{Separator}}}
	for t, k := range kinds {
		if t == NoAction || t == Separator {
			continue
		}
		r := Rule{Types: []Type{t}}
		for p := uint8(0); p <= LastPCR; p++ {
			if k.pcrs&(1<<p) != 0 {
				r.PCRs = append(r.PCRs, p)
			}
		}
		out = append(out, r)
	}
	return out
}
