package appraise

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/verifier/rim"
)

// Policy says what is required of a machine. The zero value is the strict default.
// verifier/policy makes one of a document.
type Policy struct {
	Name string        // of the document, for Result.Policy
	Hash attest.Digest // SHA-256 of the document; zero: there is none

	Banks []attest.Alg // PCR banks that must be proven; nil: SHA-256
	PCRs  []uint8      // PCRs that must be proven in each of them; nil: 0 to 10

	IMAOptional     bool // a machine without an IMA log is appraised by its PCRs alone
	BootLogRequired bool // a machine without a TCG event log is not trusted

	// BootEvents are the events that a boot log may have; a machine without a boot log that can
	// be held against them is not trusted. nil: what is unusual is only noted.
	BootEvents *eventlog.Rules

	// AllowPaddedSHA1 accepts kernels before 5.8, which extend every bank by padded SHA-1
	// digests: the proof is then as strong as SHA-1.
	AllowPaddedSHA1 bool
	// AllowKexec accepts logs with a further boot_aggregate entry.
	AllowKexec bool
	// MaxTail is the number of log entries that may follow the quoted ones; 0: no limit.
	MaxTail uint64
	// Violations says what files that were written while they were measured do to the verdict.
	Violations Violations
	// Signatures says what a file's signature in the log counts for.
	Signatures Signatures
	// Keyrings are those whose measured keys, where reference values list them, verify signatures; nil: none.
	Keyrings []string
	// IgnoreKeyrings are those whose measured keys are not compared with reference values.
	IgnoreKeyrings []string

	RefuseSuspend     bool   // a TPM that was restarted without a reset (restartCount) is not trusted
	RefuseUnsafeClock bool   // a TPM that cannot vouch for its clock after a power cut is not trusted
	MinFirmware       uint64 // of the TPM, TPMS_ATTEST.firmwareVersion; 0: any
	DeniedFirmware    []FirmwareRange

	// Software are the least versions of what the Evidence passed through, by name: AgentSoftware, or
	// as the host names it. What is required and not named is too old.
	Software map[string]string

	ValidFor time.Duration // of a Result; 0: DefaultValidFor
}

// Names in Policy.Software of what a VM has and a host has not.
const (
	AgentSoftware   = "agent" // the guest agent
	SWTPMSoftware   = "swtpm" // what the VM's vTPM runs in, and its library
	LibTPMSSoftware = "libtpms"
)

// DefaultValidFor is how long a Result counts.
const DefaultValidFor = 10 * time.Minute

// Violations says what a violation in the IMA log does to the verdict.
type Violations string

// The ways to treat violations.
const (
	ViolationsAsListed Violations = ""     // as the reference values say
	ViolationsFail     Violations = "fail" // the machine is not trusted, whatever reference values say
	ViolationsWarn     Violations = "warn" // they are noted
)

// Signatures says what signatures of files count for.
type Signatures string

// The ways to treat signatures.
const (
	SignaturesOff     Signatures = ""        // they are not looked at
	SignaturesAccept  Signatures = "accept"  // a file with a good one need not be listed
	SignaturesRequire Signatures = "require" // a file without a good one is a finding, listed or not
)

// FirmwareRange are TPM firmware versions, both ends included.
type FirmwareRange struct{ First, Last uint64 }

// FirmwareText writes a TPM's firmware version as four numbers, as vendors do.
func FirmwareText(v uint64) string {
	return fmt.Sprintf("%d.%d.%d.%d", v>>48, v>>32&0xffff, v>>16&0xffff, v&0xffff)
}

func (p Policy) banks() []attest.Alg {
	if p.Banks == nil {
		return []attest.Alg{attest.SHA256}
	}
	return p.Banks
}

func (p Policy) pcrs() []uint8 {
	if p.PCRs == nil {
		return []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	}
	return p.PCRs
}

func (p Policy) validFor() time.Duration {
	if p.ValidFor <= 0 {
		return DefaultValidFor
	}
	return p.ValidFor
}

// findings names the parts of the policy that decide what an appraisal keeps as Finding, the empty
// text for the default: with another text the log has to be appraised anew.
func (p Policy) findings() string {
	var parts []string
	if p.AllowKexec {
		parts = append(parts, "kexec")
	}
	if p.Signatures != SignaturesOff {
		parts = append(parts, "signatures="+string(p.Signatures), "keyrings="+strings.Join(p.Keyrings, ","))
	}
	if len(p.IgnoreKeyrings) > 0 {
		parts = append(parts, "ignore="+strings.Join(p.IgnoreKeyrings, ","))
	}
	return strings.Join(parts, " ")
}

// Basis names what a Result is made with: the policy's document and the reference values. A Result
// with another Basis was made before one of them changed.
func Basis(p Policy, set rim.Set) attest.Digest {
	h := sha256.New()
	h.Write([]byte("virt-attest/basis/1\x00"))
	h.Write(p.Hash[:])
	for _, d := range set.Hashes() {
		h.Write(d[:])
	}
	return attest.Digest(h.Sum(nil))
}

// sameFindings reports whether findings of m count by set and p as well.
func (m Machine) sameFindings(set rim.Set, p Policy) bool {
	return slices.Equal(m.RIMs, set.Hashes()) && m.Rules == p.findings()
}
