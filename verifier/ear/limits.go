package ear

import "time"

// Every bound on tokens and keys.
const (
	MaxToken    = 64 << 10 // a token, bytes
	MaxJWKS     = 64 << 10 // a key set, bytes
	MaxKeys     = 32       // keys in a set
	MaxKeyPEM   = 4 << 10  // an encoded private key, bytes
	MaxReasons  = 16       // of one part of a token; one more says how many were left out
	MaxText     = 256      // bytes of a reason's text
	MaxPolicies = 8        // policy IDs of one part
	MaxPolicyID = 256      // bytes
	MaxName     = 256      // bytes of an audience, an issuer, a name
	MinNonce    = 8        // characters of a relying party's nonce (RFC 9711, section 4.1)
	MaxNonce    = 88       // likewise

	MaxLifetime     = 24 * time.Hour  // of a token
	DefaultLifetime = 5 * time.Minute // of a token
	MaxLeeway       = 5 * time.Minute // for clocks that differ
	DefaultLeeway   = time.Minute     // likewise
)
