package guestagent

import "time"

const (
	nonceSize  = 32 // bytes of a quote's qualifying data
	maxSecrets = 16 // that come for one request

	// requestTime is how long what was sealed for a request is taken.
	requestTime = time.Minute
	// waitEvery is how often a file is looked for that shall come.
	waitEvery = 100 * time.Millisecond
	// maxWait is how long a secret may be waited for.
	maxWait = 24 * time.Hour

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

	// Of relying parties over the network: how many at a time, and how long each may take.
	maxPeers      = 8
	handshakeTime = 10 * time.Second
	peerTime      = 2 * time.Minute
)
