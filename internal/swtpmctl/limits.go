package swtpmctl

// Bounds of one message, in bytes.
const (
	MaxBlob     = 1 << 20      // a state blob; swtpm's own limit is 512 KiB since 0.11
	MaxInfo     = 64 << 10     // the JSON text of GET_INFO
	MaxHashData = 4096         // the data of one HASH_DATA
	MaxRequest  = 16 + MaxBlob // SET_STATEBLOB is the largest
	MaxReply    = 16 + MaxBlob // GET_STATEBLOB is the largest
	MaxBuffer   = 4096         // a TPM command or response: libtpms' TPM_BUFFER_MAX
)
