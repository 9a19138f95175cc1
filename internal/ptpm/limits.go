package ptpm

import "time"

// Every bound of the package.
const (
	MaxCommand  = 4096 // bytes (PC Client TPMs: TPM_PT_MAX_COMMAND_SIZE)
	MaxResponse = 4096 // bytes

	// DefaultTimeout is for one command with its retries. The slowest that virt-attest sends is
	// the creation of an RSA key: up to 20 s on some discrete TPMs.
	DefaultTimeout = 60 * time.Second

	firstPause = 5 * time.Millisecond // before a command is sent again, doubled each time
	maxPause   = 500 * time.Millisecond
	closeWait  = 5 * time.Second // for a command that was given up
)
