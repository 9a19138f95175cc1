package custody

import "time"

// Every bound of the package.
const (
	maxRecord   = 64 << 10         // bytes of a record
	maxState    = 1 << 20          // bytes of a vTPM's state on disk: swtpm's are some 6 KiB, with a full NVRAM 180 KiB
	maxIdentity = 16 << 10         // bytes of a recovery key's file
	maxStatus   = 700              // bytes of a unit's status, which the hook shows
	maxVMs      = 10_000           // VMs in custody that status lists
	swtpmTime   = 20 * time.Second // patience with the swtpm of a conversion, in all
)
