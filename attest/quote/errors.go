package quote

import "fmt"

// Kind is what is wrong with a quote or its key, one word per cause.
type Kind string

// The kinds. Malformed to Signature say that no such statement by this key exists; Nonce and PCRs
// that the key made a statement, but not the one needed.
const (
	KindMalformed Kind = "malformed" // not the one encoding of the TPM structure
	KindMagic     Kind = "magic"     // not made inside a TPM: TPM_GENERATED_VALUE is missing
	KindType      Kind = "type"      // another attestation structure than a quote
	KindSigner    Kind = "signer"    // signed by another key, or by the same key in another hierarchy
	KindAlgorithm Kind = "algorithm" // signature scheme or hash is not the key's own
	KindSignature Kind = "signature" // the signature does not hold
	KindNonce     Kind = "nonce"     // answers another challenge
	KindPCRs      Kind = "pcrs"      // the values are not exactly those under the signature
	KindAK        Kind = "ak"        // not a restricted signing key of a TPM, or too weak
	KindKey       Kind = "key"       // a public area from which no name can be computed
)

// Error is why a quote or key was refused. It is always the peer's fault: a function of this
// package has no other way to fail.
type Error struct {
	Kind Kind
	Text string // a sentence for people, without any secret
}

func (e *Error) Error() string { return "quote: " + e.Text }

// Is makes errors.Is(err, &Error{Kind: k}) true for every error of kind k.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && t.Text == ""
}

func fail(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}
