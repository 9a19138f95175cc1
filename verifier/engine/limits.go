package engine

import "time"

// Every bound of the package.
const (
	DefaultTimeout = time.Minute      // of an attestation that names none
	DefaultLease   = time.Minute      // for which a replica has an answer to itself
	minTimeout     = time.Second      // of an attestation
	lookEvery      = time.Second      // whoever waits looks at the database, whatever notifications say
	offlineGrace   = 10 * time.Second // for a host that is not connected to come back
	onlineFor      = 75 * time.Second // after a host's last call it counts as connected
	lineFor        = 10 * time.Minute // after it, this replica forgets that it was here
	permitFor      = 5 * time.Minute  // that a poll is let in by what was read before
	planFor        = 10 * time.Minute // that a schedule is told as it was read before
	documentFor    = time.Hour        // that an unused document is held
	tellTime       = 2 * time.Second  // for a host to tell of a VM that was started this moment
	tellEvery      = 200 * time.Millisecond
	joinTime       = 20 * time.Second // that the sender of an answer which another replica has waits
	helloFor       = 5 * time.Minute  // that an enrolment may take
	maxHellos      = 4096             // enrolments under way
	maxWaits       = 4096             // that wait for a report at this replica
	maxForged      = 16               // VMs of one word about forged metadata that are put on record
	maxPerHost     = 256              // challenges under way for one host
	maxHeld        = 256 << 20        // documents that are kept ready, bytes of their content
	directFor      = time.Minute      // how long a direct challenge counts
	directSkew     = 5 * time.Second  // between the clocks of replicas
	maxKnown       = 8192             // elements of a list in what this package encodes
	maxTries       = 3                // appraisals of one answer that are cut short, until it is ERROR unseen
	maxMissing     = 10               // VMs named in an alert about their host
	maxNamed       = 20               // hosts named in a refusal
	unansweredFor  = time.Hour        // that a report counts in which nothing was appraised, by no policy
	storeTimeout   = 40 * time.Second // to store an outcome
	dropTimeout    = time.Second      // to take leave of the other replicas
	workTimeout    = 60 * time.Second // to wait for a worker
	commitTries    = 3                // to store an outcome that others get in the way of
	maxNameLen     = 255              // of a host or VM name, bytes
	maxToken       = 256              // an enrolment token, bytes
	maxAssigned    = 64               // reference values of one machine
	histogramSize  = 44               // up to an hour

	maxBatch      = 64 << 20 // of logs of machines that are judged again together, bytes
	maxBatchVMs   = 64       // machines that are judged again together
	maxNote       = 1024     // a note on a version, bytes
	maxWord       = 64       // a tenant, an ID, bytes
	maxSuspension = 366 * 24 * time.Hour
	maxCursor     = 2048 // bytes
	maxCombos     = 4096 // of versions of documents that a basis is looked for among
	maxGateAge    = 30 * 24 * time.Hour
	maxWebhooks   = 64
	maxGiveUps    = 5 // times that a receiver refuses an event before it is told no more
	maxTopology   = 10_000
	maxStats      = 31 * 24 * 3600 // seconds
	maxSteps      = 1000           // of a plot
	maxFailures   = 10             // in the overview
	topReasons    = 10             // likewise
	lookBack      = 200            // events that failures are looked for among
	rateMinutes   = 5              // that the rate is of
	minTTL        = time.Minute    // of a token
	maxTTL        = 366 * 24 * time.Hour
	maxLogin      = 24 * time.Hour      // of a login token
	maxEnrol      = 30 * 24 * time.Hour // of a token for a host
	maxSecrets    = 10_000              // that are kept
	sessionFor    = 12 * time.Hour      // a browser's session
	keysFor       = time.Minute         // that signing keys are used as they were read before
	keysEvery     = time.Hour
	sweepEvery    = 5 * time.Minute // for results that are outdated and that no job judges again
	hookEvery     = time.Minute     // webhooks are looked at, whatever notifications say
	hookPause     = 100 * time.Millisecond
	hookBatch     = 100 // events read at a time for a webhook
	hostsPerChunk = 16  // hosts whose machines one task judges again
	impactReasons = 8   // of one machine in an impact
	impactBatch   = 32  // machines that an impact is looked for among at a time

	turnTimeout   = time.Minute // of one turn of background work
	firstPause    = 100 * time.Millisecond
	lastPause     = 30 * time.Second // of background work that fails
	takeOverEvery = 5 * time.Second
	overdueEvery  = 2 * time.Second
	overdueGrace  = time.Second // for whoever waits for an answer to end the challenge itself
	presenceEvery = 10 * time.Second
	lapseEvery    = 5 * time.Second
	watchEvery    = 10 * time.Second
	statsEvery    = time.Minute
	pruneEvery    = 10 * time.Minute
	replicaFor    = 35 * time.Second // after its last word a replica counts as there
	orphansAtOnce = 32
	lapseAtOnce   = 500
	plansAtOnce   = 200              // schedules read in one turn
	overdueAfter  = 3                // intervals
	overdueLeast  = 10 * time.Second // the shortest interval
	settingsTries = 10               // of a change that others come before
	repeatTime    = 10 * time.Minute // that an Idempotency-Key is remembered
	overdueMargin = 30 * time.Second // for jitter and the answer itself
)

// askedByHost is who asked for a challenge that a host's own schedule called for.
const askedByHost = "host"
