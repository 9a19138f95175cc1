package api

import (
	"encoding/json"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
)

// Role is what a caller may do. Each of the first four may do what those before it may, Schedulers aside.
type Role string

// The roles. A host's is given by its client certificate only.
const (
	RoleViewer    Role = "viewer"    // read
	RoleScheduler Role = "scheduler" // read VMs, gate, attest: machine role of an orchestrator
	RoleOperator  Role = "operator"  // also attest, approve, reference values, policies, assignments, alerts
	RoleAdmin     Role = "admin"     // also tokens, webhooks, tenants, audit
	RoleHost      Role = "host"
)

// Caller is who asks, as the transport has established it.
type Caller struct {
	Name   string // for the audit log: "uid 0", "cn:alice", "token:ci"
	Role   Role
	Tenant string // "" is all tenants
}

// Page asks for part of a list. Cursor is Next of the page before, "" for the first.
type Page struct {
	Cursor string `json:"cursor,omitempty"`
	Limit  int    `json:"limit,omitempty"` // at most MaxPageSize; 0: DefaultPageSize
}

// List is a page of a list.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"` // cursor of the page after; "" at the end
	Total int    `json:"total"`          // of all pages
}

// Batch is part of a list whose length nobody counts.
type Batch[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"` // cursor of what comes after; "" at the end
}

// MachineFilter selects machines. Empty fields select all.
type MachineFilter struct {
	States []appraise.State `json:"states,omitempty"`
	Host   string           `json:"host,omitempty"`   // ID or name
	Tenant string           `json:"tenant,omitempty"` // of VMs
	Text   string           `json:"text,omitempty"`   // part of the name, or beginning of UUID or ID
}

// Settings are what operators have said about a machine.
type Settings struct {
	Policy string   `json:"policy"`           // name; "default-host" or "default-vm" unless another was given
	RIMs   []string `json:"rims"`             // names
	Tenant string   `json:"tenant,omitempty"` // of a VM
	// Suspended is there while the machine is not attested by schedule; it is only told, and changed by Suspend and Resume.
	Suspended *Suspension `json:"suspended,omitempty"`
}

// Suspension says that an operator has taken a machine out of the schedule.
type Suspension struct {
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // not there: until it is resumed
}

// SuspendRequest asks for one.
type SuspendRequest struct {
	Reason  string  `json:"reason,omitempty"`  // one line, at most 1024 bytes
	Seconds float64 `json:"seconds,omitempty"` // for how long; 0: until it is resumed
}

// Counts are machines by state, each state that occurs.
type Counts map[appraise.State]int

// Overview is the first screen.
type Overview struct {
	Hosts     Counts       `json:"hosts"`
	VMs       Counts       `json:"vms"`
	Online    int          `json:"hosts_online"`
	Alerts    int          `json:"open_alerts"`
	Enrolling int          `json:"waiting_for_approval"`
	Rate      Rate         `json:"rate"`
	Failures  []Event      `json:"recent_failures"` // newest first, at most 10
	Replicas  []Replica    `json:"replicas"`
	Reasons   []ReasonRank `json:"reasons"` // why machines are not TRUSTED now, commonest first
	Time      time.Time    `json:"time"`
}

// ReasonRank counts machines whose first reason has a code.
type ReasonRank struct {
	Code  appraise.Code `json:"code"`
	Count int           `json:"count"`
}

// Rate is how many attestations were made, and with what success, over the last five minutes.
type Rate struct {
	PerSecond float64 `json:"vms_per_second"`
	Success   float64 `json:"success"` // 0..1 of VMs' verdicts that were TRUSTED; 1 where there were none
}

// Replica is a Verifier process on the same database.
type Replica struct {
	ID       string    `json:"id"`
	Host     string    `json:"host"` // machine that it runs on
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	LastSeen time.Time `json:"last_seen"`
	Hosts    int       `json:"hosts"` // that are connected to it
}

// Event kinds.
const (
	EventVerdict   = "verdict"   // a machine's state or its reasons changed
	EventHost      = "host"      // enrolled, approved, removed, connected, lost
	EventVM        = "vm"        // appeared on a host, left, was forgotten
	EventDocument  = "document"  // reference values or policy: new version, activated, removed
	EventSettings  = "settings"  // a machine's policy, reference values or tenant changed
	EventAlert     = "alert"     // raised, acknowledged, closed
	EventReplica   = "replica"   // a Verifier came or was lost
	EventReconcile = "reconcile" // a re-appraisal or impact ended
	EventAction    = "action"    // a host acted on a VM by its verdict, or a secret was released to one
)

// Event is something that happened. IDs grow, and are never used twice.
type Event struct {
	ID      int64             `json:"id"`
	Time    time.Time         `json:"time"`
	Kind    string            `json:"kind"`
	Machine string            `json:"machine,omitempty"` // VM UUID or host ID
	Name    string            `json:"name,omitempty"`    // of the machine or document
	Host    string            `json:"host,omitempty"`    // host ID
	Tenant  string            `json:"tenant,omitempty"`
	State   appraise.State    `json:"state,omitempty"`  // EventVerdict: now
	Before  appraise.State    `json:"before,omitempty"` // EventVerdict: until then; "" for the first
	Reasons []appraise.Reason `json:"reasons,omitempty"`
	Report  string            `json:"report,omitempty"`
	Text    string            `json:"text"` // a sentence
}

// EventFilter selects events. Empty fields select all.
type EventFilter struct {
	After   int64    `json:"after,omitempty"` // ID
	Kinds   []string `json:"kinds,omitempty"`
	Machine string   `json:"machine,omitempty"`
	Newest  bool     `json:"newest,omitempty"` // newest first, After is then an upper bound (0: none)
	Limit   int      `json:"limit,omitempty"`
}

// GateRequest asks whether a VM may be used: TRUSTED by Evidence that is not older than MaxAge. Where what
// is on record is not enough, the VM is attested now, within Timeout.
type GateRequest struct {
	VM      string  `json:"vm"`                // UUID or name
	Host    string  `json:"host,omitempty"`    // where several have a VM of that name
	MaxAge  float64 `json:"max_age"`           // seconds; 0: attest now in any case
	Timeout float64 `json:"timeout,omitempty"` // seconds to wait for an attestation; 0: none is made
	Nonce   string  `json:"nonce,omitempty"`   // the relying party's own, for the EAR: 8 to 88 characters
	Scheme  string  `json:"scheme,omitempty"`  // "": as the VM's policy says
}

// Gate is the answer. Trusted is what counts; everything else explains it.
type Gate struct {
	Trusted  bool            `json:"trusted"`
	Result   appraise.Result `json:"result"`
	Age      float64         `json:"age"`      // of the Evidence, seconds; -1: there is none
	Attested bool            `json:"attested"` // an attestation was made for this call, or waited for
	EAR      string          `json:"ear,omitempty"`
}

// ReportInfo names a report in a list.
type ReportInfo struct {
	ID       string         `json:"id"`
	Host     string         `json:"host"`
	Time     time.Time      `json:"time"`
	Scheme   attest.Scheme  `json:"scheme"`
	State    appraise.State `json:"state"`    // of the machine that was asked about
	Evidence bool           `json:"evidence"` // is still kept
}

// Reverified compares a stored report with what its stored Evidence gives now.
type Reverified struct {
	Stored     *Report  `json:"stored"`
	Now        *Report  `json:"now"` // by the reference values and policies that the stored one was made with, where they are kept, else the active ones
	Same       bool     `json:"same"`
	Difference []string `json:"difference,omitempty"` // sentences
}

// IMAEntry is one entry of an IMA log with what reference values say about it.
type IMAEntry struct {
	Index    uint64 `json:"index"`
	Template string `json:"template"`
	Path     string `json:"path"`    // measurement.PathText
	Digest   string `json:"digest"`  // alg:hex
	Verdict  string `json:"verdict"` // allowed, excluded, unlisted, digest, violation, noted, aggregate, unread, signed
	Text     string `json:"text,omitempty"`
}

// IMAFilter selects entries of an IMA log.
type IMAFilter struct {
	Bad  bool   `json:"bad,omitempty"`  // only what counts against the machine
	Text string `json:"text,omitempty"` // part of the path
	Page
}

// BootEvent is one event of a TCG event log. Type and data are shown, never believed.
type BootEvent struct {
	Index   int    `json:"index"`
	PCR     uint8  `json:"pcr"`
	Type    string `json:"type"`
	Digest  string `json:"digest"`  // alg:hex, of the strongest bank
	Data    string `json:"data"`    // printable, cut
	Matched bool   `json:"matched"` // the digest is that of the data
	Finding string `json:"finding,omitempty"`
}

// PCRState is one PCR as quoted and as reference values want it.
type PCRState struct {
	Alg      attest.Alg        `json:"alg"`
	Index    uint8             `json:"index"`
	Use      string            `json:"use"` // "boot loader code"
	Quoted   attest.HexBytes   `json:"quoted"`
	Expected []attest.HexBytes `json:"expected"` // none: not compared
	Verdict  string            `json:"verdict"`  // ok, mismatch, replayed (explained by the IMA log), not-compared, not-quoted
}

// Identity is what a machine is known by, and how it is bound to its host.
type Identity struct {
	Machine   string          `json:"machine"`
	Name      string          `json:"name"`
	EKSHA256  string          `json:"ek_sha256,omitempty"`
	EKName    attest.HexBytes `json:"ek_name,omitempty"`
	AKName    attest.HexBytes `json:"ak_name,omitempty"`
	EKPEM     string          `json:"ek_pem,omitempty"` // public key, SPKI
	AKPEM     string          `json:"ak_pem,omitempty"`
	EKCert    string          `json:"ek_cert,omitempty"` // PEM
	Issuer    string          `json:"issuer,omitempty"`
	How       string          `json:"how"`            // certificate, operator, activation, host-signed
	Host      string          `json:"host,omitempty"` // host ID that signs for the vTPM
	HostName  string          `json:"host_name,omitempty"`
	FirstSeen time.Time       `json:"first_seen,omitzero"`
	LastSeen  time.Time       `json:"last_seen,omitzero"`
	Link      LayerLink       `json:"link"`
}

// LayerLink is the state of the binding between a VM and its host.
type LayerLink struct {
	OK      bool              `json:"ok"`
	Scheme  attest.Scheme     `json:"scheme,omitzero"`
	Time    time.Time         `json:"time,omitzero"`
	Reasons []appraise.Reason `json:"reasons,omitempty"` // of layer link
}

// Topology is hosts with their VMs and the state of every link.
type Topology struct {
	Hosts []TopologyHost `json:"hosts"`
}

// TopologyHost is a host with its VMs.
type TopologyHost struct {
	ID     string         `json:"id"`
	Name   string         `json:"name"`
	State  appraise.State `json:"state"`
	Online bool           `json:"online"`
	VMs    []TopologyVM   `json:"vms"`
}

// TopologyVM is a VM with its link.
type TopologyVM struct {
	UUID   attest.UUID    `json:"uuid"`
	Name   string         `json:"name"`
	State  appraise.State `json:"state"`
	Link   bool           `json:"link"`   // is proven
	Reason string         `json:"reason"` // the first one
}

// Alert is something that needs an operator. One is open per machine and code.
type Alert struct {
	ID      int64          `json:"id"`
	Code    string         `json:"code"` // an appraise.Code, or one of the Verifier's own (docs/reasons.md)
	Machine string         `json:"machine,omitempty"`
	Name    string         `json:"name,omitempty"`
	Host    string         `json:"host,omitempty"`
	Tenant  string         `json:"tenant,omitempty"`
	State   appraise.State `json:"state,omitempty"`
	Text    string         `json:"text"`
	Hint    string         `json:"hint,omitempty"`
	Opened  time.Time      `json:"opened"`
	Last    time.Time      `json:"last"` // seen again
	Count   int            `json:"count"`
	Acked   time.Time      `json:"acked,omitzero"`
	AckedBy string         `json:"acked_by,omitempty"`
	Closed  time.Time      `json:"closed,omitzero"` // by itself, when the cause went away
}

// Webhook is somebody who wants to be told of events.
type Webhook struct {
	ID       string    `json:"id"`
	URL      string    `json:"url"`
	Kinds    []string  `json:"kinds"` // of events; none: all
	Tenant   string    `json:"tenant,omitempty"`
	Secret   string    `json:"secret,omitempty"` // shown once, when it is made
	Enabled  bool      `json:"enabled"`
	Created  time.Time `json:"created"`
	Last     time.Time `json:"last,omitzero"` // delivery
	Failures int       `json:"failures"`      // in a row
	Error    string    `json:"error,omitempty"`
	Pending  int       `json:"pending"` // events not delivered yet
}

// AuditEntry is one line of the audit log (verifier/audit).
type AuditEntry struct {
	Seq    int64           `json:"seq"`
	Time   time.Time       `json:"time"`
	Actor  string          `json:"actor"`
	Action string          `json:"action"`
	Object string          `json:"object"`
	Detail json.RawMessage `json:"detail,omitempty"`
	Prev   string          `json:"prev"`
	Hash   string          `json:"hash"`
}

// AuditCheck is the outcome of verifying the audit log's chain.
type AuditCheck struct {
	OK         bool   `json:"ok"`
	Entries    int64  `json:"entries"`
	Head       string `json:"head"` // hash of the last entry
	Problem    string `json:"problem,omitempty"`
	Checkpoint string `json:"checkpoint,omitempty"` // signed head, to be kept elsewhere
}

// Job is deferred work.
type Job struct {
	ID       string          `json:"id"`
	Kind     string          `json:"kind"`  // impact, reappraise, attest
	State    string          `json:"state"` // queued, running, done, failed
	Done     int             `json:"done"`
	Total    int             `json:"total"`
	Error    string          `json:"error,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Created  time.Time       `json:"created"`
	Finished time.Time       `json:"finished,omitzero"`
}

// Stats are time series for plots, oldest first, all of the same length.
type Stats struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Step   float64   `json:"step"` // seconds
	Series Series    `json:"series"`
}

// Series are the plots' values.
type Series struct {
	VMs      []float64 `json:"vms"`       // VM appraisals per second
	Trusted  []float64 `json:"trusted"`   // part of verdicts that were TRUSTED, 0..1
	Latency  Quantiles `json:"latency"`   // challenge made → report committed, seconds
	Appraise Quantiles `json:"appraise"`  // evidence received → report committed, seconds
	PerQuote []float64 `json:"per_quote"` // VMs per host quote
	Entries  []float64 `json:"entries"`   // new IMA entries per second
	Bytes    []float64 `json:"bytes"`     // of evidence, per second
	Queue    []float64 `json:"queue"`     // challenges under way
}

// Quantiles of a duration over time.
type Quantiles struct {
	P50 []float64 `json:"p50"`
	P95 []float64 `json:"p95"`
	P99 []float64 `json:"p99"`
}

// VerifyRequest is a one-shot verification of evidence that the caller brings.
type VerifyRequest struct {
	Evidence []byte              `json:"evidence"` // base64; with whole logs, as saved
	Anchors  VerifyAnchors       `json:"anchors"`
	RIMs     map[string][]string `json:"rims"` // machine ID → names on record
	Policy   string              `json:"policy,omitempty"`
}

// VerifyAnchors are the keys to believe in. Enrolled: those on record at this Verifier.
type VerifyAnchors struct {
	Enrolled bool        `json:"enrolled"`
	HostEK   string      `json:"host_ek_sha256,omitempty"`
	HostAK   attest.Name `json:"host_ak_name,omitempty"`
	VMs      []VMAnchor  `json:"vms,omitempty"`
}

// VMAnchor is a VM's keys.
type VMAnchor struct {
	UUID   attest.UUID `json:"uuid"`
	EKName attest.Name `json:"ek_name"`
	AKName attest.Name `json:"ak_name"`
}
