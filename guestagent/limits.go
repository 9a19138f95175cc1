package guestagent

import "time"

const (
	nonceSize = 32 // bytes of a quote's qualifying data

	// growEvery is how often the length of the IMA list is looked at, and the least time between two events about it.
	growEvery = 500 * time.Millisecond
	maxCount  = 32 // bytes of the file that tells it

	// readyTime is what the host has to take the first frame in.
	readyTime = 10 * time.Second
	// sessionPause separates two sessions with a host that connects and goes at once.
	sessionPause = 100 * time.Millisecond
	// unstableTime is how long a quote is tried again while PCRs move, with pauses in between.
	unstableTime  = 8 * time.Second
	unstablePause = 100 * time.Millisecond
)
