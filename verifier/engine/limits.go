package engine

import "time"

// Every bound of the package.
const (
	DefaultTimeout = time.Minute      // of an attestation that names none
	minTimeout     = time.Second      // of an attestation
	offlineGrace   = 10 * time.Second // for a host that is not connected to come back
	onlineFor      = 75 * time.Second // after a host's last call it counts as connected
	tellTime       = 2 * time.Second  // for a host to tell of a VM that was started this moment
	tellEvery      = 200 * time.Millisecond
	helloFor       = 5 * time.Minute  // that an enrolment may take
	maxHellos      = 4096             // enrolments under way
	maxSessions    = 4096             // challenges under way
	maxPerHost     = 256              // challenges under way for one host
	storeTimeout   = 40 * time.Second // to store an outcome
	commitTries    = 3                // to store an outcome that others get in the way of
	pruneEvery     = 10 * time.Minute
	maxNameLen     = 255 // of a host or VM name, bytes
	maxAssigned    = 64  // reference values of one machine
)
