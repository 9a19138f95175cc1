package metadata

import "time"

// Every bound of the package.
const (
	maxElement  = 128 << 10 // bytes of an element that is read
	maxDepth    = 8         // elements within each other
	maxRIMs     = 16        // names of reference values in a policy
	maxName     = 64        // bytes of one
	MinInterval = 10 * time.Second
	MaxInterval = 24 * time.Hour

	workers     = 4           // that speak to libvirt at a time
	tickEvery   = time.Second // expiry and intervals are looked at
	firstRetry  = 250 * time.Millisecond
	lastRetry   = 30 * time.Second // libvirt holds a domain's job for as long
	tellAfter   = 4                // failures in a row, of one domain
	forgedEvery = 10 * time.Second // attestations because of forged verdicts, of one VM
	answerTime  = 90 * time.Second // that a request waits for its verdict
)
