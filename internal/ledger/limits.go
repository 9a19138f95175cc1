package ledger

import "time"

// Bounds of a VM's store. The largest carry-over, MaxTaken states and MaxAwaited announcements with
// MaxPerAwaited quotes each, fits into a segment with room to spare (a test computes it).
const (
	SegmentSize   = 256 << 10        // bytes of a segment file
	Segments      = 16               // segments kept
	MaxLine       = 1024             // bytes of a line with its line feed
	MaxTaken      = 48               // states that were taken away, which are known again
	MaxAwaited    = 64               // announcements that have not expired
	MaxPerAwaited = 4                // quotes kept for one announcement; further ones are counted
	MaxAwait      = 10 * time.Minute // how long an announcement may live
	MaxExtra      = 64               // bytes of extraData: TPM2B_DATA of the largest name algorithm in use
	MaxDamaged    = 4                // set-aside damaged files kept

	maxText  = 64
	maxFiles = 256 // names read from a VM's directory
	// maxSegment bounds what a reader loads: a segment takes one line past its size at most.
	maxSegment = SegmentSize + 2*MaxLine
)

// Unsolicited quotes: Burst at once, then one per Interval.
const (
	Burst    = 128
	Interval = 2 * time.Second
	// dropInterval is the time between two records of kind dropped while nothing else is written.
	dropInterval = 10 * time.Second
)
