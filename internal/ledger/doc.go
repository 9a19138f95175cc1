// Package ledger is the hypervisor store: for every VM the record of each TPM2_Quote that
// its vTPM made, written by the VM's sidecar while the quote crosses and read by hostd, which
// binds a record into the host's own quote (SEPA, steps 2 and 4 of the paper).
//
// One directory per VM holds numbered segments, text files with one JSON object per line:
//
//	/var/lib/virt-attest/store/UUID/0000000001.jsonl
//
// Every line carries a sequence number and a SHA-256 value chained over all lines before it
// (record.go), so that an edit, a removed or an inserted line shows. Cutting off the end
// cannot show in the files alone; Verify compares them with the head that the running
// sidecar reports. docs/store.md is the operator's description.
//
// A Writer belongs to one process (a lock on the directory) and repairs what a crash left:
// a torn last line is cut off and reported. Readers never change anything; they may run
// at any time, also while a line is being written.
//
// What a guest can do to the store is bounded. Quotes over data that hostd announced with
// Expect are awaited: they are kept until the announcement expires, whatever happens in
// between, and a further quote never replaces an earlier one. All other quotes pass a rate
// limit; those beyond it are only counted ("dropped" records). The newest segments are kept,
// the rest is removed (limits.go), and what is still awaited is carried over into each new one.
//
// A record is one write(2) without fsync. It survives the death of the sidecar at any
// instruction. It need not survive the loss of the host: VM, vTPM and the question that the
// quote answered are then gone too. Power-ons, whose count must never go back, are
// flushed to disk in the background.
package ledger
