// Package swtpmctl is the codec of swtpm's control channel, as QEMU's tpm-emulator backend
// speaks it (include/swtpm/tpm_ioctl.h of swtpm, docs swtpm_ioctls(3)). It does no I/O.
//
// The channel is a unix stream socket. All numbers are big endian.
//
//	request   u32 command, body (its size follows from the command and, for three of them, from
//	          a length inside)
//	reply     u32 result; if it is 0, the rest of the command's reply
//
// A stream has no message boundaries, so both sides must know every size in advance:
// RequestSize and ReplySize tell it from as many bytes as have arrived. Both hold every length
// to the bounds of limits.go before anything is read for it. Check refuses requests whose
// sizes are right and whose content is not; what it refuses must not reach swtpm
// (CVE-2022-23645, CVE-2026-75900).
//
// On an error swtpm sends the 4 bytes of the result only (GET_STATEBLOB: 16 if it was the state
// that failed). QEMU up to 9.1 waits for the whole reply nevertheless, for ever; FixedReply
// tells how long that is.
package swtpmctl
