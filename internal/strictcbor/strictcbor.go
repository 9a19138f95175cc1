// Package strictcbor makes the CBOR codecs of everything that crosses a border between programs:
// one encoding per value (core deterministic encoding, RFC 8949, section 4.2.1), and decoders that
// refuse what could be read in two ways.
package strictcbor

import "github.com/fxamacker/cbor/v2"

// Encoder gives the deterministic encoding. nils says what a missing byte string or list becomes.
func Encoder(nils cbor.NilContainersMode) cbor.EncMode {
	o := cbor.CoreDetEncOptions()
	o.NilContainers = nils
	return must(o.EncMode())
}

// Decoder refuses unknown and repeated keys, indefinite lengths, tags, trailing bytes, lists of more
// than elements, and more than levels within each other. The arguments are constants: it panics where
// the library does not take them (elements from 16, levels from 4).
func Decoder(elements, levels int) cbor.DecMode {
	return must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		TagsMd:            cbor.TagsForbidden,
		MaxArrayElements:  elements,
		MaxNestedLevels:   levels,
	}.DecMode())
}

func must[T any](mode T, err error) T {
	if err != nil {
		panic(err)
	}
	return mode
}
