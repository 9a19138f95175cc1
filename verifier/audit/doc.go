// Package audit makes the Verifier's audit log tamper-evident: every entry carries a hash over itself and
// the hash of the one before. It is functions over values; a store keeps the entries, one after
// another, and gives them back in order.
//
//	entry, err := audit.Next(head, audit.Entry{Time: now, Actor: "cn:alice", Action: "rim.activate", Object: "web"})
//	head = entry.Head()                                  // stored with the entry, in one transaction
//
//	head, err := audit.Verify(audit.Head{}, entries, checkpoints...)
//
// A change, a removal, an insertion or another order shows in the log alone, and the *Error names the first
// entry that is wrong. Who may write the whole store can make a new chain, or cut off the end: that shows
// against a Checkpoint, the log's head signed by the Verifier and kept elsewhere.
//
// Export and Read are the file for keeping and for checking on another machine (VerifyFile). docs/audit.md
// describes it byte for byte.
package audit
