package policy

import "time"

// Every bound on a policy file.
const (
	MaxFile        = 1 << 20 // encoded, bytes
	MaxName        = 64      // of the policy
	MaxDescription = 4096    // bytes
	MinInterval    = 10 * time.Second
	MaxInterval    = 24 * time.Hour
	MaxLifetime    = 30 * 24 * time.Hour // of a verdict
	MaxJitter      = 0.5
	MaxAllow       = 256  // boot.allow, rules
	MaxDigests     = 4096 // of one rule
	MaxKeyrings    = 64   // in each list of keyrings
	MaxKeyring     = 128  // a keyring's name, bytes
	MaxFirmware    = 256  // denied firmware versions
	MaxSoftware    = 32   // programs with a least version
	MaxGrace       = 24 * time.Hour
	MinGate        = 10 * time.Second // that a boot has to become TRUSTED in
	MaxGate        = 24 * time.Hour
	MinSecretAge   = 5 * time.Second // of Evidence by which a secret is released: a round and the release take time
	MaxSecretAge   = time.Hour
	maxStates      = 8 // named in enforce.on
)
