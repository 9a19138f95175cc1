package verdicts

// Every bound of the package.
const (
	maxMachines = 4096 + 1 // verdicts that a Board holds: the host's and its VMs'
	maxText     = 64       // bytes of a machine's name: a UUID or a host's ID
	maxReport   = 64       // hexadecimal digits of a report's ID
)
