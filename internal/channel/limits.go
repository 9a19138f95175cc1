package channel

import "time"

const (
	// stallTime is how long a frame may stand still in the middle before the bytes behind
	// its header are searched for a whole frame. Bytes of one frame leave the writer in one
	// call; a gap this long means a very busy machine or a writer that is gone.
	stallTime = 500 * time.Millisecond
	// writeTime bounds one write to a peer that does not read.
	writeTime = 30 * time.Second
	// minBuffer is what an idle Reader holds, in bytes.
	minBuffer = 4096
	// maxMessage bounds the text of a RemoteError, in bytes.
	maxMessage = 1024
	// A Reader sums up at most maxEffort largest frames in vain, and then effortPerByte bytes
	// for each that arrives.
	maxEffort     = 32
	effortPerByte = 8
	// maxElements and maxLevels bound the lists in a payload and how deep they nest.
	maxElements = 1 << 16
	maxLevels   = 8
)
