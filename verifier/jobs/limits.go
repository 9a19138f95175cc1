package jobs

import "time"

// Every bound of the package.
const (
	MaxRun       = time.Minute           // of one run of a task: then its context ends
	rescueAfter  = 90 * time.Second      // a task whose replica died begins again
	fetchEvery   = 20 * time.Millisecond // at most, while tasks come
	pollEvery    = 2 * time.Second       // for what was to be done later, and where notifications are lost
	stopTime     = 10 * time.Second      // for tasks to end when the Verifier stops; then their contexts end
	keepDone     = time.Hour             // of tasks that were done
	keepFailed   = 7 * 24 * time.Hour    // of tasks that were given up
	DefaultTries = 25                    // of a task that fails
	giveUpTime   = 10 * time.Second      // to note that a task is given up
	firstBackoff = time.Second           // after a failure, twice as long each time
	maxBackoff   = 5 * time.Minute       //
	workers      = 2                     // tasks of one queue at a time in this process
	callWorkers  = 16                    // of the queue for calls to others
	busyTimeout  = 5 * time.Second       // SQLite
	afterBuffer  = 1024                  // ends of tasks that wait for After
	maxObject    = 64 << 10              // bytes
)
