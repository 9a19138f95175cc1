package lifecycle

import "time"

// Every bound of the package.
const (
	maxVMs      = 4096                   // known at a time
	maxBatch    = 512                    // VMs of one challenge
	maxInFlight = 2                      // challenges of ours under way
	minGap      = 200 * time.Millisecond // between two challenges

	// What one VM may cause: burst attestations at once and one more every refill. What the guest does (its log, its agent, its
	// resets) has a measure of its own, so that a guest cannot use up what its operator may ask for.
	guestBurst    = 5
	guestRefill   = 4 * time.Second
	ownBurst      = 8
	ownRefill     = time.Second
	firstRetry    = time.Second
	lastRetry     = 30 * time.Second
	attestTimeout = 75 * time.Second // for one attestation, longer than any challenge lives
	settleResume  = time.Second
	settleMoment  = 100 * time.Millisecond // for what belongs together to come together
	settleStart   = 2 * time.Second        // for the firmware of a VM that was started to begin to measure
	watchFor      = 45 * time.Second       // one watch of a sidecar
	watchAgain    = 500 * time.Millisecond // after a sidecar that is gone
	watchUnknown  = time.Minute            // after one that has no watch
)
