package hooks

import "time"

const (
	// prepareDeadline bounds how long libvirt waits for a VM's sidecar: the first start makes
	// the vTPM (1 to 2 s), and the units give up after 8 s themselves.
	prepareDeadline = 8 * time.Second
	// releaseDeadline bounds how long libvirt waits for the sidecar's end. The stop goes on without us.
	releaseDeadline = 3 * time.Second

	maxName = 128 // bytes of a domain's name in a message
)
