package channel

import (
	"github.com/fxamacker/cbor/v2"

	"virt-attest/internal/strictcbor"
)

// Encode gives v's deterministic CBOR.
func Encode(v any) ([]byte, error) { return encMode.Marshal(v) }

// Decode reads CBOR strictly: no unknown or repeated keys, no indefinite lengths, no
// trailing bytes.
func Decode(b []byte, v any) error { return decMode.Unmarshal(b, v) }

var (
	encMode = strictcbor.Encoder(cbor.NilContainerAsNull)
	decMode = strictcbor.Decoder(maxElements, maxLevels)
)
