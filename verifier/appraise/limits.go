package appraise

// Bounds on what an appraisal keeps and reports.
const (
	MaxFindings  = 256      // of one boot, kept in a machine's state; more are counted
	MaxReasons   = 64       // of one Result; one more says how many were left out
	MaxExcludes  = 256      // globs counted in a machine's state
	MaxMachine   = 16 << 20 // an encoded Machine, bytes
	MaxKeys      = 64       // keys learned from one log
	maxVerify    = 1 << 17  // signatures verified in one appraisal, of 30 to 70 µs each
	maxBootNotes = 8        // notes about a boot log that are remembered
	maxPath      = 4096     // bytes of a path that are kept: PATH_MAX
	maxValues    = 3        // reference values named in one Reason
)

// maxMachineList is the longest list in a machine's state: findings, reference values.
const maxMachineList = 4096

// maxVersionParts is the number of numbers in a version of software.
const maxVersionParts = 8
