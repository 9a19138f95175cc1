package agentport

import (
	"time"

	"virt-attest/internal/agentproto"
)

const (
	maxInFlight = 8 // requests to one agent at a time; it answers them one by one

	// reconnectTime is how long after a start of this process QEMU may take to connect again: its
	// <reconnect> timeout is a second, and a busy host adds to it.
	reconnectTime = 3 * time.Second

	helloWait  = time.Second     // what a request gives an agent that has not spoken yet
	helloRetry = 5 * time.Second // between two attempts to wake one

	// What a guest may send unasked, in bytes: rate each second, burst at once. An answer that
	// was asked for is free: each request grants its largest possible answer. The rate costs
	// one to four per cent of a core; a virtio queue full of garbage (4 MiB) is behind us in seconds.
	rate      = 1 << 20
	burst     = 512 << 10
	grantSize = agentproto.MaxPayload + 64
	maxGrant  = maxInFlight*grantSize + burst

	logEvery = time.Minute // between two lines about one guest's flood
)
