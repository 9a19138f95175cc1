package eventlog

import "virt-attest/attest"

// Every bound on what a log may hold.
const (
	MaxLog    = attest.MaxBootLog // bytes
	MaxEvents = 16384             // events
	MaxAlgs   = 16                // digest algorithms that a log names
	MaxDigest = 64                // bytes
	// MaxAnomalies are listed; a log with more is as bad as one with so many.
	MaxAnomalies = 64
)
