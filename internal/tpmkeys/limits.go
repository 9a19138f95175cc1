package tpmkeys

// Every bound of the package.
const (
	maxTries  = 8   // readings of PCRs that move meanwhile
	maxNonce  = 32  // bytes of qualifying data, so that TPMs of every profile take it
	nvChunk   = 512 // bytes of one TPM2_NV_Read: every PC Client TPM has at least this
	maxSecret = 64  // bytes of a credential's content

	MaxSealed = 128 // bytes of a sealed secret: every PC Client TPM takes as many
)
