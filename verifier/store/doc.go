// Package store keeps what the Verifier must not forget: hosts and vTPMs and how they were
// enrolled, challenges with their answers, the state of each machine's replay, IMA logs, reports, the newest
// verdict of each machine, reference values and policies, what operators have said, events, alerts, tokens, the audit log.
//
// It decides nothing. What belongs together is written in one transaction (Commit: a report, its
// results, the replay states and identities it led to, events of what is different, alerts), so that a crash leaves all of it or
// nothing. A commit is on disk when the call returns. A challenge and its answer outlive the process: a nonce counts once,
// whichever replica an answer reaches, and an answer whose appraiser died is taken over by another (Orphans).
//
// The database is an SQLite file in WAL mode, or PostgreSQL 15 or later. Both have the same tables, one text of each statement
// and one suite of tests: $1 parameters, ON CONFLICT, RETURNING, BIGINT milliseconds, BYTEA, `= ANY($n)` for
// lists; what differs stands in sqlite.go and postgres.go. Names are sorted and compared as the database's collation says: make a
// PostgreSQL database with the collation C, which is what SQLite does.
//
// IDs of events, alerts and audit entries, and the generation of what machines are appraised by, come from rows of the table
// counters inside the transaction that uses them, so that they have the order of commits; these rows are locked last.
//
// What was committed is published (Subscribe): by PostgreSQL's NOTIFY, or within the process. Notes are never queued without
// bound and may be lost, which the subscriber is told; whoever waits also looks at the database.
//
// Every method takes a context and ends on time, also while another process locks the database, the disk is full or the
// server is away. Such an error is the Verifier's fault and never a verdict on a machine; ErrNotFound,
// ErrConflict, ErrDone, ErrFull and the challenge errors are answers.
package store
