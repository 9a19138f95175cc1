package channel

import "github.com/fxamacker/cbor/v2"

// Encode gives v's deterministic CBOR.
func Encode(v any) ([]byte, error) { return encMode.Marshal(v) }

// Decode reads CBOR strictly: no unknown or repeated keys, no indefinite lengths, no
// trailing bytes.
func Decode(b []byte, v any) error { return decMode.Unmarshal(b, v) }

var (
	encMode = mustMode(cbor.CoreDetEncOptions().EncMode())
	decMode = mustMode(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		TagsMd:            cbor.TagsForbidden,
		MaxArrayElements:  1 << 16,
		MaxNestedLevels:   8,
	}.DecMode())
)

// mustMode is for codecs whose options are constants.
func mustMode[T any](m T, err error) T {
	if err != nil {
		panic(err)
	}
	return m
}
