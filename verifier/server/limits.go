package server

import "time"

// Every bound of the package besides those of verifier/api.
const (
	headerTimeout = 10 * time.Second // also of a TLS handshake
	idleTimeout   = 2 * time.Minute  // between two requests
	bodyTimeout   = 30 * time.Second // of a short body
	bulkTimeout   = 3 * time.Minute  // of a body that carries evidence or reference values
	writeTimeout  = 30 * time.Second // of a short answer
	bulkWrite     = 10 * time.Minute // of an answer that carries evidence or logs
	stopTimeout   = 5 * time.Second  // for requests under way when the Verifier stops
	bodyWait      = 20 * time.Second // for a place to read a large body into
	maxHeader     = 16 << 10         // bytes
	maxStreams    = 32               // of one HTTP/2 connection
	maxBulk       = 4                // bodies with evidence or reference values in memory at a time
	maxBulkEach   = 2                // of those, from one client
	reloadDelay   = 200 * time.Millisecond
	maxConfig     = 1 << 20 // the configuration file, bytes
)
