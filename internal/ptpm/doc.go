// Package ptpm opens a TPM 2.0 as its only user and keeps it usable: the host's physical TPM
// (/dev/tpmrm0), the TPM that a guest sees, or a software TPM behind a unix socket.
//
//	dev := ptpm.Device("/dev/tpmrm0") // nothing is opened yet
//	defer dev.Close()
//	rsp, err := dev.Send(command)     // transport.TPM
//
// One command is in flight at a time. A command has a deadline. Responses by which a TPM asks for
// patience (TPM_RC_RETRY, TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_CANCELED) are answered with
// patience: the command is sent again, with growing pauses, until the deadline. When device or
// socket fail, the command fails, and the next one opens them anew. What was loaded before may be
// gone then (handles belong to an open /dev/tpmrm0), so callers load it again.
//
// Errors are ErrUnavailable, ErrTimeout, ErrBusy or ErrFrame; every other response code is the
// caller's, in the response.
package ptpm
