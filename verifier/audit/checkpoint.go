package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// CheckpointType is the "typ" of a signed checkpoint, so that nothing else that the Verifier signs
// passes as one.
const CheckpointType = "virt-attest-audit+jws"

// Checkpoint is where a log ended at a time.
type Checkpoint struct {
	Head
	Time time.Time `json:"time"` // UTC, seconds
}

// Signer signs as a compact JWS with a "typ" (ear.Keys).
type Signer interface {
	Sign(typ string, payload []byte, now time.Time) (string, error)
}

// Opener gives the payload of what a Signer signed (ear.KeySet).
type Opener interface {
	Open(typ, signed string) ([]byte, error)
}

// Sign makes a checkpoint that is to be kept elsewhere, together with the Verifier's public keys.
func Sign(s Signer, head Head, now time.Time) (string, error) {
	payload, err := json.Marshal(Checkpoint{head, now.UTC().Truncate(time.Second)})
	if err != nil {
		return "", fmt.Errorf("audit: %w", err)
	}
	return s.Sign(CheckpointType, payload, now)
}

// OpenCheckpoint checks a signed checkpoint and reads it. The error is an *Error of KindUnsigned.
func OpenCheckpoint(o Opener, signed string) (Checkpoint, error) {
	var c Checkpoint
	if len(signed) > MaxCheckpoint {
		return c, wrong(KindUnsigned, 0, "a checkpoint of %d bytes", len(signed))
	}
	payload, err := o.Open(CheckpointType, signed)
	if err != nil {
		return c, wrong(KindUnsigned, 0, "%v", err)
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	err = d.Decode(&c)
	if again, e := json.Marshal(c); err != nil || e != nil || !bytes.Equal(again, payload) || c.Seq < 0 {
		return Checkpoint{}, wrong(KindUnsigned, 0, "it cannot be read")
	}
	return c, nil
}
