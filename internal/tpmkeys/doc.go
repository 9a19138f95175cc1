// Package tpmkeys holds what virt-attest does with a TPM 2.0, physical or virtual: its endorsement
// key (EK), the attestation key beside it (AK), quotes and PCR values.
//
// The AK is a primary key of the endorsement hierarchy from one fixed template (AKTemplate), so the
// same TPM gives the same key at every boot and nothing has to be stored:
//
//	ak, err := tpmkeys.CreateAK(tpm)
//	defer ak.Close()
//	quote, pcrs, err := tpmkeys.Quote(tpm, ak, nonce, selection)
//
// A quote is handed out byte for byte as it left the TPM. A key of the endorsement hierarchy sees
// resetCount and restartCount in clear (TPM 2.0 Part 1, section 36.7), which is what shows a
// rolled back vTPM.
//
// Functions take any transport and are not safe for concurrent use of one TPM beyond what that
// transport promises. Errors of the TPM are tpm2.TPMRC values (errors.As).
package tpmkeys
