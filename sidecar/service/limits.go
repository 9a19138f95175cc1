package service

import "time"

const (
	maxConns   = 16               // connections at one time
	maxExtra   = 64               // bytes of awaited extraData
	maxExpire  = 600              // seconds that a quote may be awaited
	maxAgent   = 60 * time.Second // patience with the guest agent
	readTime   = 10 * time.Second // patience for the lane between two TPM commands
	nvChunk    = 1024             // bytes of one TPM2_NV_Read: libtpms' TPM_PT_NV_BUFFER_MAX
	pcrRounds  = 4                // TPM2_PCR_Reads of one bank: 24 PCRs, 8 at a time, one to spare
	ekHandle   = 0x81010001       // RSA-2048 EK (TCG EK Credential Profile, section 2.2.1.5)
	ekCertNV   = 0x01c00002       // its certificate
	maxBackoff = 100 * time.Millisecond

	maxWatch    = 60 * time.Second
	watchEvery  = 250 * time.Millisecond // the vTPM is looked at while somebody watches
	watchSettle = 200 * time.Millisecond // gathers what a guest tells
)
