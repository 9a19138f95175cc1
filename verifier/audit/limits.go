package audit

// Every bound on entries and files.
const (
	MaxName        = 256      // bytes of an actor, an action, an object
	MaxDetail      = 16 << 10 // bytes of details, as stored
	MaxLine        = 32 << 10 // bytes of a line of a file
	MaxCheckpoint  = 4 << 10  // bytes of a signed checkpoint
	MaxCheckpoints = 1024     // to check against at once
)
