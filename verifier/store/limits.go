package store

import "time"

// Every bound of the package.
const (
	readers     = 8                // connections for reading
	maxJournal  = 64 << 20         // bytes that the write-ahead log keeps between checkpoints
	opTimeout   = 5 * time.Second  // of a short operation
	bulkTimeout = 30 * time.Second // of one that moves evidence and logs
	keepTaken   = 24 * time.Hour   // how long challenges stay on record after they ended
)

// Retention says what Prune leaves.
type Retention struct {
	Reports  int           // per host, besides the newest of each machine
	Evidence int           // of those, how many with their evidence
	Age      time.Duration // older reports go
}
