package server

import (
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// Every bound of the package besides those of verifier/api.
const (
	headerTimeout = 10 * time.Second // also of a TLS handshake
	idleTimeout   = 2 * time.Minute  // between two requests
	bodyTimeout   = 30 * time.Second // of a short body
	bulkTimeout   = 3 * time.Minute  // of a body that carries evidence or reference values
	writeTimeout  = 30 * time.Second // of a short answer
	bulkWrite     = 10 * time.Minute // of an answer that carries evidence or logs
	readyTimeout  = 2 * time.Second  // of readyz: the database's time to answer
	authTimeout   = 5 * time.Second  // to find out who holds a secret
	stopTimeout   = 5 * time.Second  // for requests under way when the Verifier stops
	bodyWait      = 20 * time.Second // for a place to read a large body into
	forever       = -1               // of a route that paces itself
	maxHeader     = 16 << 10         // bytes
	maxStreams    = 32               // of one HTTP/2 connection
	maxBulk       = 4                // bodies with evidence or reference values in memory at a time
	maxBulkEach   = 2                // of those, from one client
	maxVerify     = api.MaxRequest + attest.MaxEvidence/3*4
	maxDepth      = 32   // of objects and arrays in a request in JSON
	maxParameter  = 1024 // bytes of a parameter or a segment of a path
	maxPath       = 4096 // bytes
	reloadDelay   = 200 * time.Millisecond

	maxEnrolments   = 10000
	maxStatsSeconds = 366 * 24 * 3600
	maxStatsSteps   = 2000
	rowsPerDeadline = 100 // of an export, that are written within writeTimeout

	maxSecret    = 256             // characters of a token
	knownFor     = 3 * time.Second // that an answer of Authenticate is believed
	maxKnown     = 4096            // of such answers
	maxStrikes   = 10              // wrong credentials of one address within strikeTime
	strikeTime   = time.Minute
	maxAddresses = 10000 // whose wrong credentials are counted
	sessionTime  = 12 * time.Hour
	maxLogin     = 4096 // bytes of the login form
	maxUpload    = api.MaxRIM + 1<<20

	maxEventStreams     = 256              // open at a time
	maxEventStreamsEach = 8                // of those, of one caller
	streamBuffer        = 64               // events that wait for a slow reader
	streamWrite         = 10 * time.Second // for a reader to take what is sent
	streamTime          = time.Hour        // then the client opens another one
	beat                = 15 * time.Second // between two signs of life, and looks at the credential
	retryAfter          = time.Second      // told to browsers

	maxKey = 128 // characters of an Idempotency-Key
)
