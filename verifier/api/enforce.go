package api

import (
	"context"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/sealed"
	"virt-attest/verifier/appraise"
)

// Bounds of what hosts do by verdicts.
const (
	MaxActs       = 64  // in one Acted
	MaxActProblem = 400 // bytes of Act.Problem
	MaxVMSecrets  = 16  // assigned to one VM
)

// RulesRequest asks what a host shall do to its VMs by their verdicts.
type RulesRequest struct {
	Host string        `cbor:"1,keyasint"`
	VMs  []attest.UUID `cbor:"2,keyasint"` // that run or start there
}

// Rules answers RulesRequest with a Rule for each VM, in that order.
type Rules struct {
	Items []Rule `cbor:"1,keyasint"`
}

// Rule is the part of a VM's policy that its host carries out (docs/enforcement.md), as in verifier/policy. The host does nothing
// that its own configuration does not allow.
type Rule struct {
	Machine   attest.UUID      `cbor:"1,keyasint"`
	Policy    string           `cbor:"2,keyasint"`
	Action    string           `cbor:"3,keyasint"`
	On        []appraise.State `cbor:"4,keyasint"`
	Grace     time.Duration    `cbor:"5,keyasint"`
	Undo      bool             `cbor:"6,keyasint"`
	Gate      bool             `cbor:"7,keyasint"`
	Limit     time.Duration    `cbor:"8,keyasint"`
	Otherwise string           `cbor:"9,keyasint"`
	Links     string           `cbor:"10,keyasint"`
	Secrets   []byte           `cbor:"11,keyasint,omitempty"` // changes with what is assigned to the VM; empty: nothing is
}

// What a host did, in Act.Action.
const (
	ActPause    = "pause"
	ActResume   = "resume"
	ActLinkDown = "link-down"
	ActLinkUp   = "link-up"
	ActShutdown = "shutdown"
	ActDestroy  = "destroy"
	ActSecrets  = "secrets"   // delivered what was released
	ActGate     = "gate-open" // the start gate
)

// Act is something that a host did to a VM, or could not do.
type Act struct {
	Machine attest.UUID    `cbor:"1,keyasint"`
	Action  string         `cbor:"2,keyasint"`
	Why     string         `cbor:"3,keyasint"`           // ActWhys
	State   appraise.State `cbor:"4,keyasint,omitempty"` // of the verdict; "": there was none
	Report  string         `cbor:"5,keyasint,omitempty"` // with the evidence
	Time    int64          `cbor:"6,keyasint"`           // by the host's clock, Unix milliseconds
	Problem string         `cbor:"7,keyasint,omitempty"` // why it could not be done; "": it was
}

// Why a host acted.
const (
	WhyVerdict = "verdict" // the VM is in a state that calls for it
	WhyTrusted = "trusted" // the VM is TRUSTED again
	WhyStart   = "start"   // the start gate holds it
	WhyLimit   = "limit"   // the gate's limit is over
	WhyRule    = "rule"    // the policy does not call for it any more
)

// Acted tells what a host did.
type Acted struct {
	Host string `cbor:"1,keyasint"`
	Acts []Act  `cbor:"2,keyasint"` // at most MaxActs
}

// ReleaseRequest asks for the secrets of a VM that is TRUSTED.
type ReleaseRequest struct {
	Host    string      `cbor:"1,keyasint"`
	Machine attest.UUID `cbor:"2,keyasint"`
	Epoch   uint64      `cbor:"3,keyasint"` // of its vTPM now
	Nonce   []byte      `cbor:"4,keyasint"` // of its guest agent
}

// Release is the VM's secrets, each sealed to its vTPM, its run and the nonce: nobody else can read them.
type Release struct {
	Items []ReleasedSecret `cbor:"1,keyasint"` // at most MaxVMSecrets
}

// ReleasedSecret is one secret.
type ReleasedSecret struct {
	Name string     `cbor:"1,keyasint"`
	Box  sealed.Box `cbor:"2,keyasint"`
}

// Rules asks what the host shall do to VMs by their verdicts.
func (c *Client) Rules(ctx context.Context, r RulesRequest) (*Rules, error) {
	var v Rules
	return &v, c.doCBOR(ctx, request{path: "host/rules", max: MaxReply}, r, &v)
}

// Acted tells what the host did.
func (c *Client) Acted(ctx context.Context, a Acted) error {
	return c.doCBOR(ctx, request{path: "host/acted", max: MaxRequest}, a, nil)
}

// Release asks for a VM's secrets.
func (c *Client) Release(ctx context.Context, r ReleaseRequest) (*Release, error) {
	var v Release
	return &v, c.doCBOR(ctx, request{path: "host/release", max: MaxRequest}, r, &v)
}
