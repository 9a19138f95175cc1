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
	// hopelessTime is how long after such a wait nobody waits again: a reset of the guest is five commands.
	hopelessTime = 30 * time.Second
	// dialTime bounds one exchange while attaching.
	dialTime = 2 * time.Second
	// evictTime is how long a new QEMU's data socket waits for the old one's end.
	evictTime = 2 * time.Second
	// A swtpm that does not answer for longer than this hangs, and is taken for dead. It is single-threaded:
	// whatever it does takes milliseconds, but for a key that a guest has made (RSA, some seconds),
	// and a control command waits until that is done.
	hangTime = 60 * time.Second // a TPM command of the guest
	// shortShare is the part of it that every other command has: our own, all of which read, and control
	// commands, during which QEMU stands still, and virsh with it.
	shortShare = 3
	// laneLook is how often one who waits for the lane looks whether its holder waits for swtpm.
	laneLook = 500 * time.Millisecond
	// spins is how often a socket is looked at before the thread sleeps, while commands follow
	// each other closely: some 300 µs. Two wake-ups of a thread per TPM command cost more than
	// everything else that is done here.
	spins = 1000
	// maxRights is how many descriptors of one message are looked at.
	maxRights = 4
	// trimAbove is the size of a control message whose memory is given back at once.
	trimAbove = 4096
)
