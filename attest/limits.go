package attest

// Every bound on what a peer may send, checked before anything is allocated for it.
const (
	PCRCount      = 24        // PCRs of a PC Client TPM
	MaxBanks      = 8         // PCR banks of one TPM
	MaxQuote      = 4096      // parameter area of a TPM2_Quote response, bytes
	MaxVMs        = 4096      // VMs of one Evidence
	MaxPublic     = 1024      // a TPMT_PUBLIC, bytes
	MaxCert       = 8 << 10   // an EK certificate, DER bytes
	MaxName       = 2 + 64    // a TPM object name, bytes
	MaxBootLog    = 1 << 20   // a TCG event log, bytes
	MaxIMAData    = 64 << 20  // an IMA log segment, bytes
	MaxSoftware   = 32        // programs that a host names of itself
	MaxVMSoftware = 8         // programs that a host names of one VM
	MaxText       = 256       // a version, a kernel release, a display name, bytes
	MaxEvidence   = 256 << 20 // an encoded Evidence, bytes
	MaxChallenge  = 2 << 20   // an encoded Challenge with MaxVMs VMs, bytes

	maxElements = 1 << 20 // elements of any list in an encoding
	maxLevels   = 16      // how deep an encoding nests
)
