package attest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"virt-attest/internal/strictcbor"
)

// EvidenceVersion is the version of the encoding of Evidence and Challenge.
const EvidenceVersion = 1

// Challenge is what the Verifier asks of a host: evidence by Scheme about VMs, fresh by Nonce.
type Challenge struct {
	Nonce    Nonce    `cbor:"1,keyasint" json:"nonce"`
	Scheme   Scheme   `cbor:"2,keyasint" json:"scheme"`
	Host     string   `cbor:"3,keyasint" json:"host"`               // the host that shall answer
	VMs      []UUID   `cbor:"4,keyasint,omitempty" json:"vms"`      // sorted, no repeats; empty: every attested VM of the host
	NotAfter int64    `cbor:"5,keyasint" json:"not_after"`          // Unix seconds; an answer that comes later counts for nothing
	Resume   []Resume `cbor:"6,keyasint,omitempty" json:"resume"`   // where each machine's IMA log goes on, sorted; absent: from entry 0
	BootLogs bool     `cbor:"7,keyasint,omitempty" json:"bootlogs"` // also send the TCG event logs
	// Signer is set where somebody has asked the one VM directly: the host then does not ask it, but shows that its
	// vTPM, on this host, has made the quote that the key with this name signed.
	Signer Name `cbor:"8,keyasint,omitempty" json:"signer,omitempty"`
}

// Resume asks for a machine's IMA log from entry Count on, if the machine still
// runs the boot that BootID names; otherwise the log comes from entry 0. With Boot the TCG event log of that
// boot is on record and need not come again.
type Resume struct {
	Machine UUID   `cbor:"1,keyasint" json:"machine"` // zero: the host
	BootID  string `cbor:"2,keyasint" json:"boot_id"`
	Count   uint64 `cbor:"3,keyasint" json:"count"`
	Boot    bool   `cbor:"4,keyasint,omitempty" json:"boot,omitempty"`
}

// Expired reports whether the challenge can no longer be answered at now.
func (c Challenge) Expired(now time.Time) bool { return now.Unix() > c.NotAfter }

// ResumeFor finds machine's Resume; the zero Resume means from the beginning.
func (c Challenge) ResumeFor(machine UUID) Resume {
	for _, r := range c.Resume {
		if r.Machine == machine {
			return r
		}
	}
	return Resume{Machine: machine}
}

// WantsBootLog reports whether the challenge asks for the TCG event log of a machine that runs the boot bootID.
func (c Challenge) WantsBootLog(machine UUID, bootID string) bool {
	r := c.ResumeFor(machine)
	return c.BootLogs && (!r.Boot || r.BootID != bootID || bootID == "")
}

// Evidence is a host's answer to one Challenge (RFC 9334: Evidence of a layered
// Attester, the host as the lead). Nothing in it is believed before it was checked
// against the quotes it carries.
type Evidence struct {
	Version   uint8        `cbor:"1,keyasint" json:"version"`
	Challenge Challenge    `cbor:"2,keyasint" json:"challenge"`
	Host      HostEvidence `cbor:"3,keyasint" json:"host"`
	Inclusion Inclusion    `cbor:"4,keyasint" json:"inclusion"`
	VMs       []VMEvidence `cbor:"5,keyasint,omitempty" json:"vms"` // sorted by UUID, no repeats
}

// Inclusion shows that this challenge's binding is one of those under the host's
// quote: a Merkle path in the round's tree (docs/protocol.md). One host quote answers
// every challenge that waited when the round began.
type Inclusion struct {
	Index uint32   `cbor:"1,keyasint" json:"index"`
	Count uint32   `cbor:"2,keyasint" json:"count"`
	Path  []Digest `cbor:"3,keyasint,omitempty" json:"path"`
}

// HostEvidence is what the pTPM signed and what explains it.
type HostEvidence struct {
	ID       string     `cbor:"1,keyasint" json:"id"`
	Quote    Quote      `cbor:"2,keyasint" json:"quote"`
	AK       []byte     `cbor:"3,keyasint" json:"ak"`                // TPMT_PUBLIC
	EK       []byte     `cbor:"4,keyasint" json:"ek"`                // TPMT_PUBLIC
	EKCert   []byte     `cbor:"5,keyasint,omitempty" json:"ek_cert"` // DER
	PCRs     []PCRBank  `cbor:"6,keyasint" json:"pcrs"`              // the values that the quote covers
	IMA      LogSegment `cbor:"7,keyasint" json:"ima"`
	BootLog  []byte     `cbor:"8,keyasint,omitempty" json:"boot_log"` // TCG event log, whole
	Software []Software `cbor:"9,keyasint,omitempty" json:"software"`
}

// Software names a program that the Evidence passed through: display and minimum-version rules.
type Software struct {
	Name    string `cbor:"1,keyasint" json:"name"`
	Version string `cbor:"2,keyasint" json:"version"`
}

// VMStatus says what the host could get from a VM. It is part of what the pTPM signs.
type VMStatus uint8

// The statuses of a VM in a round.
const (
	VMQuoted     VMStatus = 1 // SEPA: its vTPM quoted and the store holds the record. HYPA: its vPCRs were read
	VMNoAnswer   VMStatus = 2 // the guest agent was absent, stuck or sent nothing usable
	VMNoRecord   VMStatus = 3 // the guest answered, but its vTPM made no quote for this challenge
	VMNoTPM      VMStatus = 4 // the vTPM is not running: died, or the guest's firmware has not started it
	VMNotRunning VMStatus = 5 // asked for by the challenge, but no such VM runs here
	VMHeld       VMStatus = 6 // the host has paused it by a verdict (docs/enforcement.md), so that its guest cannot answer
	VMRolledBack VMStatus = 7 // it runs with an earlier state of its vTPM than the last one that the host saw
)

// VMEvidence is one VM's part of an Evidence. UUID, Epoch, Status, EKName, AKName and
// (SEPA) QuoteHash are signed by the pTPM; in HYPA also PCRs and the digest of IMA.
type VMEvidence struct {
	UUID      UUID       `cbor:"1,keyasint" json:"uuid"`
	Name      string     `cbor:"2,keyasint,omitempty" json:"name"` // display only
	Status    VMStatus   `cbor:"3,keyasint" json:"status"`
	Epoch     uint64     `cbor:"4,keyasint" json:"epoch"`               // how often this vTPM was powered on, as the host counted
	EKName    Name       `cbor:"5,keyasint,omitempty" json:"ek_name"`   // read from the vTPM by the host
	AKName    Name       `cbor:"6,keyasint,omitempty" json:"ak_name"`   // SEPA: of the key that signed the recorded quote
	QuoteHash Digest     `cbor:"7,keyasint" json:"quote_hash"`          // SEPA: VmAttestationHash out of the hypervisor store
	EK        []byte     `cbor:"8,keyasint,omitempty" json:"ek"`        // TPMT_PUBLIC
	EKCert    []byte     `cbor:"9,keyasint,omitempty" json:"ek_cert"`   // DER
	AK        []byte     `cbor:"10,keyasint,omitempty" json:"ak"`       // TPMT_PUBLIC
	Quote     Quote      `cbor:"11,keyasint" json:"quote"`              // SEPA: as the guest sent it
	PCRs      []PCRBank  `cbor:"12,keyasint,omitempty" json:"pcrs"`     // SEPA: values under the quote. HYPA: all allocated banks, read by the host
	IMA       LogSegment `cbor:"13,keyasint" json:"ima"`                // from the guest
	BootLog   []byte     `cbor:"14,keyasint,omitempty" json:"boot_log"` // from the guest
	Agent     AgentInfo  `cbor:"15,keyasint" json:"agent"`              // from the guest
	Problem   string     `cbor:"16,keyasint,omitempty" json:"problem"`  // why something is missing, for people

	// Software is what serves the VM on its host: swtpm and libtpms as they run, which need not be
	// those on disk. The host's word, as HostEvidence.Software; under no quote.
	Software []Software `cbor:"17,keyasint,omitempty" json:"software,omitempty"`
}

// AgentInfo is what the guest agent says about itself. Display, and the boot that the log belongs to.
type AgentInfo struct {
	Version string `cbor:"1,keyasint" json:"version"`
	Kernel  string `cbor:"2,keyasint" json:"kernel"`
	BootID  string `cbor:"3,keyasint" json:"boot_id"`
}

// LogSegment is a run of whole entries of a machine's binary IMA measurement list, as
// the kernel wrote them.
type LogSegment struct {
	BootID       string `cbor:"1,keyasint,omitempty" json:"boot_id"`
	TemplateHash Alg    `cbor:"2,keyasint,omitempty" json:"template_hash"` // algorithm of the list's template digests (SHA1 for the kernel's default list)
	From         uint64 `cbor:"3,keyasint" json:"from"`                    // index of the first entry
	Count        uint64 `cbor:"4,keyasint" json:"count"`                   // entries in Data
	Data         []byte `cbor:"5,keyasint,omitempty" json:"data"`
}

// ErrMalformed wraps every error about an encoding: the peer's fault.
var ErrMalformed = errors.New("attest: malformed")

// Encode gives the Evidence's one encoding: CBOR, core deterministic (RFC 8949, section 4.2.1).
func (e *Evidence) Encode() ([]byte, error) { return encMode.Marshal(e) }

// DecodeEvidence reads what Encode wrote and refuses everything else: unknown and
// repeated keys, indefinite lengths, trailing bytes, sizes above the package's limits,
// another order of VMs. It says nothing about truth.
func DecodeEvidence(b []byte) (*Evidence, error) {
	if len(b) > MaxEvidence {
		return nil, fmt.Errorf("%w: Evidence of %d bytes", ErrMalformed, len(b))
	}
	var e Evidence
	if err := decMode.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := e.Check(); err != nil {
		return nil, err
	}
	if again, err := e.Encode(); err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: not the deterministic encoding", ErrMalformed)
	}
	return &e, nil
}

// EncodeChallenge gives the Challenge's one encoding.
func EncodeChallenge(c *Challenge) ([]byte, error) { return encMode.Marshal(c) }

// DecodeChallenge reads what EncodeChallenge wrote, strictly.
func DecodeChallenge(b []byte) (*Challenge, error) {
	if len(b) > MaxChallenge {
		return nil, fmt.Errorf("%w: Challenge of %d bytes", ErrMalformed, len(b))
	}
	var c Challenge
	if err := decMode.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	if again, err := EncodeChallenge(&c); err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: not the deterministic encoding", ErrMalformed)
	}
	return &c, nil
}

// Check holds the Challenge to its bounds and order.
func (c *Challenge) Check() error {
	if _, ok := schemeNames[c.Scheme]; !ok {
		return fmt.Errorf("%w: %v", ErrMalformed, c.Scheme)
	}
	if len(c.VMs) > MaxVMs || len(c.Resume) > MaxVMs+1 || len(c.Host) > MaxText {
		return fmt.Errorf("%w: Challenge over its limits", ErrMalformed)
	}
	for i := 1; i < len(c.VMs); i++ {
		if c.VMs[i-1].Compare(c.VMs[i]) >= 0 {
			return fmt.Errorf("%w: VMs of a Challenge are not in order", ErrMalformed)
		}
	}
	for i, r := range c.Resume {
		if len(r.BootID) > MaxText || i > 0 && c.Resume[i-1].Machine.Compare(r.Machine) >= 0 {
			return fmt.Errorf("%w: Resume of a Challenge is not in order", ErrMalformed)
		}
	}
	if c.Scheme == SchemeSEPAExact && len(c.VMs) != 1 || c.Scheme == SchemeHost && len(c.VMs) != 0 {
		return fmt.Errorf("%w: %d VMs in a Challenge by %v", ErrMalformed, len(c.VMs), c.Scheme)
	}
	if len(c.Signer) > MaxName || len(c.Signer) > 0 && (c.Scheme != SchemeSEPA || len(c.VMs) != 1) {
		return fmt.Errorf("%w: a Challenge for a link is about one VM, by sepa", ErrMalformed)
	}
	if c.Nonce == (Nonce{}) {
		return fmt.Errorf("%w: the nonce of a Challenge is zero", ErrMalformed)
	}
	return nil
}

// Check holds the Evidence to its bounds and order. It says nothing about truth.
func (e *Evidence) Check() error {
	if e.Version != EvidenceVersion {
		return fmt.Errorf("%w: Evidence version %d, this program reads %d", ErrMalformed, e.Version, EvidenceVersion)
	}
	if err := e.Challenge.Check(); err != nil {
		return err
	}
	if err := e.Host.check(); err != nil {
		return err
	}
	if len(e.VMs) > MaxVMs || len(e.Inclusion.Path) > 32 {
		return fmt.Errorf("%w: Evidence over its limits", ErrMalformed)
	}
	for i := range e.VMs {
		if err := e.VMs[i].Check(); err != nil {
			return err
		}
		if i > 0 && e.VMs[i-1].UUID.Compare(e.VMs[i].UUID) >= 0 {
			return fmt.Errorf("%w: VMs of an Evidence are not in order", ErrMalformed)
		}
	}
	return nil
}

func (h *HostEvidence) check() error {
	switch {
	case len(h.ID) > MaxText, len(h.AK) > MaxPublic, len(h.EK) > MaxPublic, len(h.EKCert) > MaxCert,
		len(h.BootLog) > MaxBootLog, checkSoftware(h.Software, MaxSoftware) != nil:
		return fmt.Errorf("%w: host evidence over its limits", ErrMalformed)
	}
	return errors.Join(h.Quote.check(), CheckBanks(h.PCRs), h.IMA.check())
}

func checkSoftware(list []Software, most int) error {
	ok := len(list) <= most
	for _, s := range list {
		ok = ok && len(s.Name) <= MaxText && len(s.Version) <= MaxText
	}
	if !ok {
		return fmt.Errorf("%w: software over its limits", ErrMalformed)
	}
	return nil
}

// Check holds one VM's evidence to its bounds. A host checks each VM before it puts it into an Evidence:
// one VM that does not pass makes the whole Evidence malformed.
func (v *VMEvidence) Check() error {
	switch {
	case len(v.Name) > MaxText, len(v.EKName) > MaxName, len(v.AKName) > MaxName, len(v.EK) > MaxPublic,
		len(v.AK) > MaxPublic, len(v.EKCert) > MaxCert, len(v.BootLog) > MaxBootLog, len(v.Problem) > 4*MaxText,
		len(v.Agent.Version) > MaxText, len(v.Agent.Kernel) > MaxText, len(v.Agent.BootID) > MaxText:
		return fmt.Errorf("%w: evidence of VM %v over its limits", ErrMalformed, v.UUID)
	case v.Status < VMQuoted || v.Status > VMRolledBack:
		return fmt.Errorf("%w: VM %v has unknown status %d", ErrMalformed, v.UUID, v.Status)
	}
	return errors.Join(v.Quote.check(), CheckBanks(v.PCRs), v.IMA.check(), checkSoftware(v.Software, MaxVMSoftware))
}

func (q Quote) check() error {
	if len(q.Attest)+len(q.Signature)+2 > MaxQuote {
		return fmt.Errorf("%w: quote over %d bytes", ErrMalformed, MaxQuote)
	}
	return nil
}

func (l LogSegment) check() error {
	// The smallest IMA entry ("ima" template) is 4+20+4+3+20+4 bytes.
	if l.TemplateHash != 0 && l.TemplateHash.Size() == 0 {
		return fmt.Errorf("%w: IMA log with template digests by %v", ErrMalformed, l.TemplateHash)
	}
	if len(l.BootID) > MaxText || len(l.Data) > MaxIMAData || l.Count > uint64(len(l.Data)) || l.From > 1<<40 {
		return fmt.Errorf("%w: IMA log segment over its limits", ErrMalformed)
	}
	return nil
}

var (
	// A missing byte string or list is an empty one, so that null has no meaning and nothing has
	// two encodings.
	encMode = strictcbor.Encoder(cbor.NilContainerAsEmpty)
	decMode = strictcbor.Decoder(maxElements, maxLevels)
)
