package lab

import "time"

// Every bound of the package.
const (
	MaxHosts = 16 // of one lab

	baseTimeout    = 10 * time.Minute // building the base system
	bootTimeout    = 2 * time.Minute  // all hosts, from nothing to ready
	commandTimeout = 60 * time.Second // one command that the lab itself runs
	stopTimeout    = 10 * time.Second // the death of a killed container
	pollEvery      = 20 * time.Millisecond

	verifierPort = 16515 // TCP

	maxTPMFrame  = 4096    // a TPM command or response, bytes
	maxMeasured  = 4096    // files of one host
	maxFileSize  = 1 << 30 // a file that is measured or copied, bytes
	maxLogSize   = 16 << 20
	maxStateFile = 1 << 20
)
