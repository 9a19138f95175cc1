package hostcheck

import "time"

// Every bound, and where a check begins to complain.
const (
	maxIMA = 1 << 20 // bytes of the IMA list that are looked at

	tpmTime      = 10 * time.Second // for one thing that is asked of the TPM
	verifierTime = 5 * time.Second

	minLibvirt = 9_000_000 // 9.0.0, the first with an external TPM
	certWarn   = 30 * 24 * time.Hour
	certFail   = 3 * 24 * time.Hour
	freeWarn   = 1 << 30 // bytes of the file system with the state
	freeFail   = 64 << 20
)
