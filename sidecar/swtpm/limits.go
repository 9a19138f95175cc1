package swtpm

import "time"

const (
	maxAnswer  = 4 << 10         // bytes of the answer to --version
	maxMaps    = 1 << 20         // bytes of a process's list of mapped files
	maxVersion = 32              // bytes of a version
	askTime    = 2 * time.Second // patience with --version
	closeTime  = 100 * time.Millisecond
)
