package store

import "time"

// Every bound of the package.
const (
	DefaultConns  = 16
	maxConns      = 1000                // to PostgreSQL
	maxJournal    = 64 << 20            // bytes that the write-ahead log keeps between checkpoints
	checkpoint    = 8000                // pages of 4 KiB in it that make one: SQLite's own 1000 has a writer wait for the disk every half second under load
	opTimeout     = 5 * time.Second     // of a short operation
	bulkTimeout   = 30 * time.Second    // of one that moves evidence and logs
	openTimeout   = 60 * time.Second    // to connect and to bring tables up to date
	busyTimeout   = 2 * time.Second     // that a statement waits for another process's lock on the file
	txTries       = 4                   // of a transaction that others get in the way of
	maxStatements = 256                 // that are kept prepared
	maxNotes      = 1024                // that wait for a subscriber
	maxHostNotes  = 32                  // hosts that one change names; those of a greater one are told all together
	maxPayload    = 7900                // bytes of a notification; PostgreSQL's own bound is 8000
	listenPing    = 20 * time.Second    // without a notification until the connection is asked whether it is there
	listenRetry   = 10 * time.Second    // between tries to connect again, at most
	keepTaken     = 24 * time.Hour      // how long challenges stay on record after they ended
	keepTokens    = 30 * 24 * time.Hour // how long tokens are listed after they expired
	keepJobs      = 7 * 24 * time.Hour
	keepStats     = 31 * 24 * time.Hour
	pruneBatch    = 200         // reports, challenges or logs that go in one transaction
	touchEvery    = time.Minute // between notes of when a token was last used
	maxOutput     = 2000        // bytes of what pg_dump says
	maxAlerts     = 1000        // in one answer
	mergeBelow    = 64 << 10    // bytes of a piece of an IMA log that others are merged with, and of what comes of it
	mergeAt       = 16          // such pieces of one log that stay as they are
	maxAssigned   = 100         // machines named with a document
)

// Retention says what Prune leaves.
type Retention struct {
	Reports  int           // per host, besides the newest of each machine
	Evidence int           // of those, how many with their evidence
	Age      time.Duration // older reports go
	Events   time.Duration // older events go, and alerts that were closed before; 0: none
}
