package hooks

import "time"

const (
	// PrepareDeadline bounds how long libvirt waits for a VM's sidecar: the first start makes
	// the vTPM (1 to 2 s), and the units give up after 8 s themselves.
	PrepareDeadline = 8 * time.Second
	// ReleaseDeadline bounds how long libvirt waits for the sidecar's end. The stop goes on without us.
	ReleaseDeadline = 3 * time.Second

	maxName = 128 // bytes of a domain's name in a message
	maxWhy  = 800 // bytes of a unit's status in a message
)
