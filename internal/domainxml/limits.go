package domainxml

// Bounds of what is read. libvirt's own remote protocol carries documents of up to 4 MiB.
const (
	MaxXML = 16 << 20 // bytes of a domain's XML

	maxElements = 20_000 // elements that are remembered: TPMs, channels, controllers and what is in them
	maxDepth    = 8      // of remembered elements; what is deeper is skipped
	maxText     = 256    // bytes of a remembered text
)
