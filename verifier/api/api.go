// Package api is the interface between the Verifier and those who talk to it: hosts, operators
// and relying parties. Everything is HTTP under /api/v1, over a unix socket, or over TCP with
// client certificates, tokens and sessions; JSON, but for hosts and Evidence: deterministic CBOR.
//
// What people and programs can ask for is in docs/openapi.json, which is made of the table of routes
// (verifier/server), with docs/api.md to explain it. Hosts:
//
//	POST /api/v1/host/hello                   HostHello → HostWelcome        (CBOR)
//	GET  /api/v1/host/challenges?host=&wait=&verdicts=  → Poll               (CBOR, long poll)
//	POST /api/v1/host/challenge               ChallengeRequest → attest.Challenge (CBOR)
//	POST /api/v1/host/evidence                attest.Evidence → EvidenceReply (CBOR)
//	POST /api/v1/host/activated               Activated → nil                (CBOR)
//	POST /api/v1/host/rules                   RulesRequest → Rules           (CBOR)
//	POST /api/v1/host/acted                   Acted → nil                    (CBOR)
//	POST /api/v1/host/release                 ReleaseRequest → Release       (CBOR)
//
// A machine's id is a VM's UUID or a host's ID. A host's ID is the first 16 bytes of SHA-256
// over its EK's public area in hexadecimal: whoever says it must prove it by activation.
// Errors are RFC 9457 problems.
package api

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
)

// HostID gives the ID of the host whose pTPM has the endorsement key ek (TPMT_PUBLIC).
func HostID(ek []byte) string {
	d := sha256.Sum256(ek)
	return hex.EncodeToString(d[:16])
}

// EKSHA256 gives what an operator compares before approving a host: SHA-256 over its endorsement
// key's public area (TPMT_PUBLIC), in hexadecimal.
func EKSHA256(ek []byte) string {
	d := sha256.Sum256(ek)
	return hex.EncodeToString(d[:])
}

// Version says who answers.
type Version struct {
	Version string `json:"version"`
	API     string `json:"api"` // "v1"
}

// Host is a host as the Verifier knows it.
type Host struct {
	ID       string          `json:"id"`
	Name     string          `json:"name"`
	EKSHA256 string          `json:"ek_sha256"` // of the EK's public area, what an operator compares before approving
	Approved bool            `json:"approved"`
	How      string          `json:"how"` // "certificate", "operator" or ""
	Online   bool            `json:"online"`
	LastSeen time.Time       `json:"last_seen"`
	Result   appraise.Result `json:"result"`
}

// VM is a VM as the Verifier knows it.
type VM struct {
	UUID   attest.UUID     `json:"uuid"`
	Name   string          `json:"name"`
	Host   string          `json:"host"`
	Result appraise.Result `json:"result"`
}

// Approve accepts a host's endorsement key. EKSHA256 must be the one on record.
type Approve struct {
	EKSHA256 string `json:"ek_sha256"`
}

// AttestRequest asks for evidence now. Host may be empty where VMs name VMs of one host. No
// VMs: all of the host, or none of them with SchemeHost.
type AttestRequest struct {
	Host    string        `json:"host"` // ID or name
	VMs     []string      `json:"vms"`  // UUID or name
	Scheme  attest.Scheme `json:"scheme"`
	Timeout float64       `json:"timeout"` // seconds, at most 300; 0: 60
}

// Report is the outcome of one challenge.
type Report struct {
	ID     string            `json:"id"`
	Scheme attest.Scheme     `json:"scheme"`
	Host   appraise.Result   `json:"host"`
	VMs    []appraise.Result `json:"vms"`
	Steps  []Step            `json:"steps"` // of the protocol, as they happened
}

// Step is one protocol step with its time, for -v and for measurements.
type Step struct {
	Text    string  `json:"text"`
	Seconds float64 `json:"seconds"`
}

// RIMInfo names reference values.
type RIMInfo struct {
	Name     string    `json:"name"`
	SHA256   string    `json:"sha256"`
	Files    int       `json:"files"`
	Modified time.Time `json:"modified"`
	Assigned []string  `json:"assigned"` // machine ids
}

// Assign assigns reference values to a machine; several are a union. An empty list takes all away.
type Assign struct {
	RIMs []string `json:"rims"`
}

// HostHello introduces a host whenever it connects.
type HostHello struct {
	Name     string            `cbor:"1,keyasint"`
	EK       []byte            `cbor:"2,keyasint"`
	EKCert   []byte            `cbor:"3,keyasint,omitempty"`
	AK       []byte            `cbor:"4,keyasint"`
	Software []attest.Software `cbor:"5,keyasint,omitempty"`
	VMs      []HostVM          `cbor:"6,keyasint,omitempty"` // that run there now
	Instance []byte            `cbor:"7,keyasint,omitempty"` // random, of this connection of hostd: challenges that an earlier one took come again
	Token    string            `cbor:"8,keyasint,omitempty"` // one-time enrolment token, of a host that nobody has approved yet
}

// HostVM names a VM that runs on a host.
type HostVM struct {
	UUID attest.UUID `cbor:"1,keyasint"`
	Name string      `cbor:"2,keyasint"`
}

// HostWelcome answers HostHello. Activation, if any, is answered by Activated before
// challenges come.
type HostWelcome struct {
	ID         string       `cbor:"1,keyasint"`
	Activation []Activation `cbor:"2,keyasint,omitempty"`
	Schedule   *Schedule    `cbor:"3,keyasint,omitempty"`
	Rules      []byte       `cbor:"10,keyasint,omitempty"` // as Poll.Rules
}

// Schedule tells a host when to ask for a challenge by itself: every Interval, give or take Jitter of it.
// Interval 0: never.
type Schedule struct {
	Interval time.Duration `cbor:"1,keyasint"`
	Jitter   float64       `cbor:"2,keyasint"` // 0 to 0.5
	Scheme   attest.Scheme `cbor:"3,keyasint"`
}

// ChallengeRequest asks for a challenge of the host's own accord.
type ChallengeRequest struct {
	Host   string        `cbor:"1,keyasint"`
	Scheme attest.Scheme `cbor:"2,keyasint"`
	VMs    []HostVM      `cbor:"3,keyasint,omitempty"` // that it is about; none: all of the host
	Why    string        `cbor:"4,keyasint,omitempty"` // what happened, at most MaxWhy letters and hyphens; "": its schedule
}

// Activation is a credential for an AK that the Verifier has not seen before (TPM 2.0 Part 3,
// sections 12.5, 12.6). Machine zero is the host.
type Activation struct {
	Machine        attest.UUID `cbor:"1,keyasint"`
	CredentialBlob []byte      `cbor:"2,keyasint"` // TPM2B_ID_OBJECT
	Secret         []byte      `cbor:"3,keyasint"` // TPM2B_ENCRYPTED_SECRET
}

// Activated returns the credentials' contents. Machines that could not are left out.
type Activated struct {
	Host  string         `cbor:"1,keyasint"`
	Nonce attest.Nonce   `cbor:"2,keyasint"` // of the Evidence that they belong to; zero after HostHello
	Items []ActivatedKey `cbor:"3,keyasint"`
}

// ActivatedKey is one credential's content.
type ActivatedKey struct {
	Machine attest.UUID `cbor:"1,keyasint"`
	Secret  []byte      `cbor:"2,keyasint"`
}

// EvidenceReply answers Evidence. Where Activation is not empty, the results wait for Activated
// (or for the challenge to end).
type EvidenceReply struct {
	Activation []Activation `cbor:"1,keyasint,omitempty"`
}
