package api

import (
	"time"

	"virt-attest/attest"
)

// Every bound of the interface, for both its ends.
const (
	MaxHello   = 2 << 20           // an encoded HostHello or HostWelcome, bytes
	MaxReply   = 4 << 20           // an encoded EvidenceReply, bytes
	MaxRequest = 1 << 20           // any other request, bytes
	MaxAnswer  = 256 << 20         // an answer to an operator, bytes
	MaxRIM     = 64 << 20          // a reference value file, bytes
	MaxProblem = 64 << 10          // an error answer, bytes
	MaxHostVMs = attest.MaxVMs     // VMs of one HostHello
	MaxWait    = 60 * time.Second  // that a poll for challenges may last
	MaxTimeout = 300 * time.Second // of an AttestRequest
	MaxPoll    = 64                // challenges in the answer to one poll

	MaxVerdicts    = 64       // verdicts in the answer to one poll
	MaxHostReasons = 8        // of a HostVerdict
	MaxReasonText  = 400      // bytes of the text of one
	MaxWhy         = 32       // bytes of ChallengeRequest.Why
	MaxEAR         = 32 << 10 // bytes of HostVerdict.EAR; a longer one is left out

	DefaultPageSize = 100
	MaxPageSize     = 1000 // items of one page of a list
	MaxImpact       = 200  // machines named in an Impact
	MaxEvents       = 1000 // in one answer
	MaxNote         = 1000 // bytes of the note of a version

	maxEvent = 1 << 20 // one line of an event stream, bytes

	maxHostVerdict = 64 << 10 // an encoded HostVerdict, bytes
	maxPollBytes   = MaxPoll*attest.MaxChallenge + MaxVerdicts*maxHostVerdict
)
