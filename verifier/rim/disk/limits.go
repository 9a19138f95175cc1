package disk

// Every bound on an image.
const (
	MaxEntries    = 4 << 20 // directory entries of one file system
	MaxDepth      = 256     // directories in each other
	MaxPath       = 4095    // bytes of a path: PATH_MAX
	MaxPartitions = 128
	maxGroups     = 1 << 20  // block groups of a file system
	maxExtents    = 1 << 20  // extents of one file, and index blocks
	maxL1         = 32 << 20 // bytes of a qcow2 image's first table, as QEMU
	maxL2Cached   = 32       // second tables held
	maxVirtual    = 64 << 40 // bytes of an image
	MaxText       = 1 << 20  // bytes of a small file, such as fstab
)
