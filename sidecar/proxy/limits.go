package proxy

import "time"

const (
	// halfCommandTime is how long the rest of a TPM command may take. QEMU writes a command
	// in one call; only one whose header promises more than was written comes in part.
	halfCommandTime = 100 * time.Millisecond
	// storeTime bounds a wait for the service manager's confirmation.
	storeTime = 2 * time.Second
	// attachTime bounds the wait for a swtpm that is being started again; QEMU stands still.
	attachTime = 5 * time.Second
	// dialTime bounds one exchange while attaching.
	dialTime = 2 * time.Second
	// evictTime is how long a new QEMU's data socket waits for the old one's end.
	evictTime = 2 * time.Second
	// ownTime bounds one command of our own; a swtpm that needs longer is taken for dead.
	ownTime = 20 * time.Second
	// spins is how often a socket is looked at before the thread sleeps, while commands follow
	// each other closely: some 300 µs. Two wake-ups of a thread per TPM command cost more than
	// everything else that is done here.
	spins = 1000
	// maxRights is how many descriptors of one message are looked at.
	maxRights = 4
	// trimAbove is the size of a control message whose memory is given back at once.
	trimAbove = 4096
)
