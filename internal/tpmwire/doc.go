// Package tpmwire reads and writes the few TPM 2.0 structures that stand at a vTPM's boundary:
// the headers of commands and responses, the parameter area of a TPM2_Quote response, and a
// handful of commands that only read (PCR_Read, GetCapability, ReadPublic, NV_Read). It does no
// I/O, keeps nothing, and copies only where it says so.
//
// A frame on the wire (TPM 2.0 Part 1, section 18):
//
//	u16 tag, u32 size of the whole frame, u32 command code or response code, rest
//
// Everything that a guest or a TPM sent is untrusted: every size is held to the bytes that are
// there. Parts 2 and 3 of the TPM 2.0 library specification define the structures; comments
// name the section.
package tpmwire
