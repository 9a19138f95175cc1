package directproto

import "time"

// Every bound of the package.
const (
	maxFile       = 1 << 20          // a certificate, key or CA file, bytes
	maxLog        = 16 << 20         // an IMA log that is taken from a VM, bytes
	handshakeTime = 10 * time.Second // for a TLS handshake
)
