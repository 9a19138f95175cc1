package rim

// Every bound on a file of reference values.
const (
	MaxFile        = 64 << 20 // encoded, bytes
	MaxFiles       = 1 << 20  // paths
	MaxDigests     = 1 << 20  // digests allowed by themselves
	MaxPerPath     = 1024     // digests of one path
	MaxPerPCR      = 4096     // values of one PCR, and as many events
	MaxKeys        = 64       // of those who sign files
	MaxGlobs       = 256      // excludes, and as many violation paths
	MaxName        = 64       // of the reference values
	MaxDescription = 4096     // bytes; created_from too
	MaxPath        = 4 * 4096 // a path as text, bytes: PATH_MAX, escaped
)
