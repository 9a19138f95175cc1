package enforce

import "time"

// Every bound of the package.
const (
	DefaultPerMinute = 10 // VMs that may be shut down or destroyed in a minute

	maxSteps     = 8                // decided about one VM in a row
	maxFile      = 16 << 20         // the state file, bytes
	maxOutbox    = 512              // acts that the Verifier was not told of yet
	maxKnown     = 2 * 4096         // rules that are kept
	ruleTime     = 30 * time.Second // after a start in which a rule may still say that it is gated
	shutdownTime = 3 * time.Minute  // that a guest has to shut down
	firstRetry   = time.Second      // of a step that failed, doubled each time
	lastRetry    = time.Minute
	between      = 10 * time.Second // at least, from one act against a VM to the next, the gate's aside
	tick         = time.Second      // for what waits for a time
	callTime     = 15 * time.Second // for one call of libvirt, a sidecar or the Verifier
	deliverTime  = time.Minute      // for a VM's secrets
	tellRetry    = 5 * time.Second
	rulesRetry   = 2 * time.Second
	maxParallel  = 8 // VMs that are looked after at the same time
)
