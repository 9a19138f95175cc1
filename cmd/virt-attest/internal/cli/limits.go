package cli

import "time"

// Every bound of the command line.
const (
	maxAnswer   = 256              // bytes typed as an answer to a question
	maxToken    = 4096             // bytes of a token file
	maxPolicy   = 1 << 20          // a policy file, bytes
	maxPEM      = 1 << 20          // a file of certificates, bytes
	maxAudit    = 1 << 30          // an exported audit log, bytes
	maxPages    = 1_000_000        // of one list: a Verifier that never ends is given up
	maxAttests  = 64               // hosts asked at the same time
	localTime   = 5 * time.Second  // for one vTPM of this host
	extraTime   = 90 * time.Second // beyond an attestation's own, for a VM that is asked directly and its log
	lastActions = 5                // of its host on a VM, that info shows
	completing  = 2 * time.Second
	jobPoll     = 300 * time.Millisecond // between two looks at deferred work
	jobPollMost = 3 * time.Second
)
