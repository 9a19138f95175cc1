// Package journal is the sidecar's memory of what is under way, kept in a memfd that the
// service manager holds while the process is dead. It is made so that a process may be killed
// (SIGKILL) between any two instructions and its successor knows exactly which bytes were
// received and which were sent.
//
// # Exact counts
//
// All messages cross by recvmmsg(2) and sendmmsg(2) with one message per call. Those calls
// have the kernel store the number of bytes into the caller's mmsghdr, in the same call that
// moves the bytes; and a Transfer's mmsghdr lies in the journal. SIGKILL takes effect where a system
// call ends or sleeps, and between moving the bytes and storing their number the kernel does
// neither. So either the bytes moved and the journal says how many, or nothing happened.
// (The page is locked into memory: a fault is the only thing that could sleep there.)
// Of those four bytes' eight-byte word the other half holds the bytes that earlier calls
// moved, so that a count is carried over by one atomic store.
//
// # Steps
//
// A slot is one exchange: guest's TPM command, own TPM command, control command. Its Step says
// which Transfer is under way; the counts of the other transfers mean nothing. A transfer's count
// is set to zero before the step that uses it is entered, and everything that a step needs is stored
// before the step is. There is no recovery as such: a new process goes on with the step that it finds.
//
// Byte layout: see layout.go. Open takes the same version of the layout only. Of another one Succeed takes over
// what is known of vTPM and QEMU, and tells whether something was under way: each
// journal begins with an outline that says where that stands.
package journal
