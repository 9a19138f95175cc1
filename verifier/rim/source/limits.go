package source

import "time"

// Every bound on a source.
const (
	MaxFiles     = 1 << 20  // regular files of all sources together
	MaxPackages  = 1 << 17  // packages of all sources together
	MaxUnpacked  = 64 << 30 // bytes of one package or initramfs, unpacked
	MaxMember    = 32 << 30 // bytes of one file in an archive
	MaxRPMHeader = 64 << 20 // bytes of a package's header, as rpm's own bound on its data
	maxRPMTags   = 1 << 16
	MaxName      = 4095     // bytes of a path: PATH_MAX
	maxDepth     = 256      // directories in each other
	maxWindow    = 64 << 20 // bytes that a decompressor may look back, as xz -9; twice that for zstd
	maxSegments  = 64       // archives one after the other in an initramfs
	maxLinks     = 1 << 16  // hard links of an archive that wait for their file
	progressStep = 100 * time.Millisecond
)
