package policy

import (
	"math"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/internal/strictjson"
	"virt-attest/verifier/appraise"
)

// Format is the name and version of the file format.
const Format = "virt-attest/policy/1"

// Words of a File.
const (
	Required = "required" // boot.log, ima.log
	Optional = "optional"
	Allow    = "allow" // tpm.suspend, tpm.unsafe_clock
	Refuse   = "refuse"

	AsListed = "as-listed" // ima.violations: as the reference values say
	Fail     = "fail"
	Warn     = "warn"

	Off     = "off" // ima.signatures
	Accept  = "accept"
	Require = "require"
)

// File is a policy file. Every key is explained in docs/policy.md.
type File struct {
	Format      string        `json:"format"`
	Name        string        `json:"name"` // a-z 0-9 . _ -, at most MaxName
	Description string        `json:"description,omitempty"`
	Scheme      attest.Scheme `json:"scheme"`   // sepa or hypa
	Interval    Duration      `json:"interval"` // between two attestations; 0: only when somebody asks
	Jitter      float64       `json:"jitter"`   // part of Interval by which each one is moved, 0 to MaxJitter
	Lifetime    Duration      `json:"lifetime"` // of a verdict, longer than Interval
	PCRs        PCRs          `json:"pcrs"`
	Boot        Boot          `json:"boot"`
	IMA         IMA           `json:"ima"`
	TPM         TPM           `json:"tpm"`
	// Software are least versions by name: "agent" is the guest agent, other names are the host's.
	Software map[string]string `json:"software"`
	// Enforce and Secrets are left out of the encoding where they ask for nothing beyond Default.
	Enforce Enforce `json:"enforce,omitzero"`
	Secrets Secrets `json:"secrets,omitzero"`
}

// PCRs says what must be under a quote.
type PCRs struct {
	Banks    []attest.Alg `json:"banks"`    // each of them; not sha1
	Required PCRList      `json:"required"` // in each bank
}

// Boot is about the TCG event log.
type Boot struct {
	Log   string      `json:"log"`   // Required or Optional
	Rules []string    `json:"rules"` // names of eventlog.Named; empty with Allow: events are not judged
	Allow []BootAllow `json:"allow"` // further events
}

// BootAllow allows events of one type.
type BootAllow struct {
	PCR     uint8         `json:"pcr"`
	Type    eventlog.Type `json:"type"`
	Digests []string      `json:"digests,omitempty"` // "alg:hex"; none: every digest
}

// IMA is about the IMA log.
type IMA struct {
	Log             string   `json:"log"` // Required or Optional
	MaxTail         uint64   `json:"max_tail"`
	AllowKexec      bool     `json:"allow_kexec"`
	AllowPaddedSHA1 bool     `json:"allow_padded_sha1"`
	Violations      string   `json:"violations"` // AsListed, Fail or Warn
	Signatures      string   `json:"signatures"` // Off, Accept or Require
	Keyrings        []string `json:"keyrings"`   // whose measured and listed keys verify signatures
	IgnoreKeyrings  []string `json:"ignore_keyrings"`
}

// TPM is about the TPM itself.
type TPM struct {
	Suspend        string   `json:"suspend"`      // Allow or Refuse
	UnsafeClock    string   `json:"unsafe_clock"` // Allow or Refuse
	MinFirmware    string   `json:"min_firmware,omitempty"`
	DeniedFirmware []string `json:"denied_firmware"` // "7.40" (all that begin so) or "7.40-7.62"
}

// Kind is what a default policy is for.
type Kind uint8

// The kinds of machines.
const (
	KindHost Kind = 1
	KindVM   Kind = 2
)

// Default gives the policy of a machine to which none is assigned: the strictest, by sepa, every five
// minutes, with verdicts that count for an hour.
func Default(kind Kind) *File {
	f := strictest()
	f.Name, f.Description = "default-vm", "VMs without a policy of their own"
	if kind == KindHost {
		f.Name, f.Description = "default-host", "hosts without a policy of their own"
	}
	return f
}

// strictest is what a File is where it does not say otherwise.
func strictest() *File {
	return &File{
		Format: Format, Scheme: attest.SchemeSEPA, Interval: Duration(5 * time.Minute), Jitter: 0.1, Lifetime: Duration(time.Hour),
		PCRs:     PCRs{Banks: []attest.Alg{attest.SHA256}, Required: PCRList{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		Boot:     Boot{Log: Optional, Rules: []string{}, Allow: []BootAllow{}},
		IMA:      IMA{Log: Required, Violations: AsListed, Signatures: Off, Keyrings: []string{".ima"}, IgnoreKeyrings: []string{}},
		TPM:      TPM{Suspend: Allow, UnsafeClock: Allow, DeniedFirmware: []string{}},
		Software: map[string]string{},
		Enforce:  noEnforcement(),
		Secrets:  strictSecrets(),
	}
}

// Encode gives the File's one encoding: whole, sorted, without repeats, indented.
func (f *File) Encode() ([]byte, error) {
	f.sort()
	if err := f.check(); err != nil {
		return nil, err
	}
	return strictjson.Write(f)
}

// sort brings lists that are sets into one order.
func (f *File) sort() {
	f.PCRs.Banks, f.PCRs.Required = sorted(f.PCRs.Banks), sorted(f.PCRs.Required)
	f.Boot.Rules, f.IMA.Keyrings, f.IMA.IgnoreKeyrings = sorted(f.Boot.Rules), sorted(f.IMA.Keyrings), sorted(f.IMA.IgnoreKeyrings)
	f.TPM.DeniedFirmware = sorted(f.TPM.DeniedFirmware)
	f.Enforce.On = sorted(f.Enforce.On)
	for i := range f.Boot.Allow {
		f.Boot.Allow[i].Digests = sorted(f.Boot.Allow[i].Digests)
	}
	slices.SortFunc(f.Boot.Allow, BootAllow.compare)
	f.Boot.Allow = slices.CompactFunc(f.Boot.Allow, func(a, b BootAllow) bool { return a.compare(b) == 0 })
	if f.Boot.Allow == nil {
		f.Boot.Allow = []BootAllow{}
	}
	if f.Software == nil {
		f.Software = map[string]string{}
	}
}

// sorted gives a list sorted and without repeats, never nil.
func sorted[S ~[]E, E ~uint8 | ~uint16 | ~string](s S) S {
	if s == nil {
		return S{}
	}
	slices.Sort(s)
	return slices.Compact(s)
}

func (a BootAllow) compare(b BootAllow) int {
	if a.PCR != b.PCR {
		return int(a.PCR) - int(b.PCR)
	}
	if c := strings.Compare(typeText(a.Type), typeText(b.Type)); c != 0 {
		return c
	}
	return slices.Compare(a.Digests, b.Digests)
}

func typeText(t eventlog.Type) string {
	b, _ := t.MarshalText() // never fails
	return string(b)
}

// CheckName refuses names of policies that would not fit a URL or a file name.
func CheckName(name string) error { return strictjson.CheckName("policy", name, MaxName) }

// Appraisal gives what an appraisal requires. Name and Hash are set by an Index, which knows the encoding.
// A File that Encode refuses gives something that nothing passes.
func (f *File) Appraisal() appraise.Policy {
	p := appraise.Policy{
		Name: f.Name, Banks: slices.Clone(f.PCRs.Banks), PCRs: slices.Clone(f.PCRs.Required),
		IMAOptional: f.IMA.Log == Optional, BootLogRequired: f.Boot.Log == Required, BootEvents: f.bootEvents(),
		AllowPaddedSHA1: f.IMA.AllowPaddedSHA1, AllowKexec: f.IMA.AllowKexec, MaxTail: f.IMA.MaxTail,
		Keyrings: slices.Clone(f.IMA.Keyrings), IgnoreKeyrings: slices.Clone(f.IMA.IgnoreKeyrings),
		RefuseSuspend: f.TPM.Suspend != Allow, RefuseUnsafeClock: f.TPM.UnsafeClock != Allow,
		ValidFor: time.Duration(f.Lifetime), Software: map[string]string{},
	}
	if f.IMA.Violations != AsListed {
		p.Violations = appraise.Violations(f.IMA.Violations)
	}
	if f.IMA.Signatures != Off {
		p.Signatures = appraise.Signatures(f.IMA.Signatures)
	}
	if err := f.check(); err != nil {
		p.DeniedFirmware = []appraise.FirmwareRange{{Last: math.MaxUint64}}
		return p
	}
	if f.TPM.MinFirmware != "" {
		r, _ := parseFirmware(f.TPM.MinFirmware) // checked
		p.MinFirmware = r.First
	}
	for _, s := range f.TPM.DeniedFirmware {
		r, _ := parseFirmware(s) // checked
		p.DeniedFirmware = append(p.DeniedFirmware, r)
	}
	for name, least := range f.Software {
		p.Software[name] = least
	}
	return p
}

// bootEvents gives the rules for the boot log's events, nil for none.
func (f *File) bootEvents() *eventlog.Rules {
	if len(f.Boot.Rules)+len(f.Boot.Allow) == 0 {
		return nil
	}
	var all []eventlog.Rule
	for _, name := range f.Boot.Rules {
		rules, _ := eventlog.Named(name)
		all = append(all, rules...)
	}
	for _, a := range f.Boot.Allow {
		r := eventlog.Rule{PCRs: []uint8{a.PCR}, Types: []eventlog.Type{a.Type}}
		for _, d := range a.Digests {
			v, _ := parseDigest(d) // checked; nothing has an empty digest
			r.Digests = append(r.Digests, v)
		}
		all = append(all, r)
	}
	return eventlog.NewRules(all...)
}
