package webhook

import "time"

// Every bound on deliveries.
const (
	MaxBody       = 1 << 20          // of a message, bytes
	MaxURL        = 2048             // bytes
	MaxID         = 128              // bytes of a message's ID
	MaxSecrets    = 4                // that sign at once, while one replaces another
	MaxSignatures = 16               // that a receiver looks at
	MaxRetryAfter = 24 * time.Hour   // that an endpoint may ask for
	MaxTimeout    = 60 * time.Second // of one attempt
	Tolerance     = 5 * time.Minute  // between a receiver's clock and the timestamp of a message

	defaultTimeout = 15 * time.Second
	maxHeader      = 16 << 10    // of an answer, bytes
	maxAnswer      = 4 << 10     // of an answer's body that are read to keep the connection, bytes
	drainTime      = time.Second // for that
	secretBytes    = 32          // of a new secret
	minSecret      = 24          // bytes of a secret (Standard Webhooks)
	maxSecret      = 64          // likewise
)
