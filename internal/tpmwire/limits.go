package tpmwire

// Bounds, in bytes.
const (
	HeaderSize = 10
	MaxFrame   = 4096 // libtpms' TPM_BUFFER_MAX: commands and responses
	maxBanks   = 16   // entries of a TPML_PCR_SELECTION (HASH_COUNT of any TPM is less)
	maxDigests = 8    // entries of a TPML_DIGEST (Part 2, section 10.9.5)
)
