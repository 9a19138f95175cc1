package api

import (
	"time"

	"virt-attest/verifier/appraise"
)

// DocKind is a kind of versioned document.
type DocKind string

// The kinds of document.
const (
	DocRIM    DocKind = "rim"
	DocPolicy DocKind = "policy"
)

// Document is a named document with the version that is active.
type Document struct {
	Kind     DocKind   `json:"kind"`
	Name     string    `json:"name"`
	Active   int       `json:"active"` // version; 0: none
	SHA256   string    `json:"sha256"` // of the active version's content
	Versions int       `json:"versions"`
	Files    int       `json:"files,omitempty"` // of reference values
	Modified time.Time `json:"modified"`
	Assigned []string  `json:"assigned"` // machine IDs, at most 100
	Machines int       `json:"machines"` // how many
}

// DocVersion is one version of a document. Versions count from 1.
type DocVersion struct {
	Version   int       `json:"version"`
	SHA256    string    `json:"sha256"`
	Size      int       `json:"size"`
	Created   time.Time `json:"created"`
	Author    string    `json:"author"`
	Note      string    `json:"note"`
	Active    bool      `json:"active"`
	Activated time.Time `json:"activated,omitzero"` // last time
}

// DocPut is a new version of a document.
type DocPut struct {
	Content  []byte
	Note     string
	Activate bool

	// Match is told the SHA-256 of the active version, "" where there is none, while nobody else can change it. Where it says no, nothing is
	// changed. Nil: any will do. A Client sends none.
	Match func(active string) bool
}

// DocChange is one difference between two versions.
type DocChange struct {
	Op   string `json:"op"` // add, remove, change
	What string `json:"what"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Impact is what activating a version would do to verdicts, by the newest Evidence on record.
type Impact struct {
	Kind     DocKind         `json:"kind"`
	Name     string          `json:"name"`
	Version  int             `json:"version"`
	Machines int             `json:"machines"` // that use the document
	Judged   int             `json:"judged"`   // whose Evidence is on record and was appraised
	Changes  []ImpactMachine `json:"changes"`  // whose state or reasons would change; at most MaxImpact
	More     int             `json:"more"`
	Time     time.Time       `json:"time"`
}

// ImpactMachine is one machine whose verdict would change.
type ImpactMachine struct {
	Machine string            `json:"machine"`
	Name    string            `json:"name"`
	Now     appraise.State    `json:"now"`
	Then    appraise.State    `json:"then"`
	Reasons []appraise.Reason `json:"reasons"` // then
}

// AcceptRequest makes a new version of reference values that allows what a machine showed.
type AcceptRequest struct {
	Machine  string   `json:"machine"`
	Entries  []uint64 `json:"entries,omitempty"` // indexes of findings in its IMA log
	All      bool     `json:"all,omitempty"`     // all findings of files
	PCRs     []uint8  `json:"pcrs,omitempty"`    // that are different now
	Note     string   `json:"note,omitempty"`
	Activate bool     `json:"activate"`
}

// Accepted is the new version with what is different in it.
type Accepted struct {
	Version DocVersion  `json:"version"`
	Changes []DocChange `json:"changes"`
}
