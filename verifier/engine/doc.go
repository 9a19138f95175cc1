// Package engine is what the Verifier does, apart from who asks and by which protocol: it enrols
// hosts, makes challenges and hands them out, takes answers, has them judged (verifier/evaluate) and
// keeps the outcome (verifier/store). An Engine is one replica of those on a database; a call may come to any of them.
//
// # A challenge's life
//
//	made → delivered → taken → its report is committed
//
// Attest finds the host, makes a nonce, notes each machine's record as it is now and puts the challenge on record, which
// wakes the host's poll at whichever replica it is. The answer may come to another replica again: Take spends the nonce and
// stores the Evidence before anything of it is looked at. From then on a goroutine (appraisal) owns the answer, for as long as it
// extends its lease: quotes and links are verified, keys that are not on record are activated, the rest is appraised, and the
// outcome is committed in one transaction. Whoever called Attest waits for the report, at any replica, or is gone by then.
//
// A challenge that nobody answers ends as UNREACHABLE: by whoever waits, at the deadline; by any replica a moment
// later, where nobody does.
//
// # Death of a replica
//
// A replica that dies leaves rows. A challenge that was made waits for its answer all the same; what was on its way to a host
// comes again when the host has found another replica; an answer that was taken is appraised by another replica when the lease
// ends, from the Evidence on record. Credentials that the host has opened meanwhile count; where none went out or came back,
// the VM is PENDING (key-pending). A report's key is its nonce, so whoever commits second commits nothing. An answer whose
// appraisal was cut short maxTries times is ERROR and not looked at again: it may be what ended the processes.
//
// Close is no death: answers that came are appraised to the end, and those who wait here get ERROR for what was not answered.
//
// # Answers that overtake each other
//
// An answer is judged by the newest record of its machines. Whether another came in between is told by the record's revision, not by
// clocks. The earlier of two that were under way together may come last and says nothing about now: who asked gets the verdict
// by the record of when the challenge was made, unless something on record speaks against the machine, and the newer
// result stays the one that counts (appraisal.judged).
//
// # Work beside
//
// Background work (background.go) runs at every replica under supervision: a panic or a failure is told and the work begins
// again. Notifications may be lost: whoever waits for one also looks at the database, all hosts' polls together by one read a
// second. Appraisals are bounded by a semaphore; a panic in one of them is that one's ERROR.
package engine
