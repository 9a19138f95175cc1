// Package store keeps what the Verifier must not forget: hosts and vTPMs and how they were
// enrolled, challenges, the state of each machine's replay, IMA logs, reports, reference values.
//
// It decides nothing. What belongs together is written in one transaction (Commit: a report, its
// results, the replay states and identities it led to), so that a crash leaves all of it or nothing.
// A commit is on disk when the call returns. A challenge that was taken stays taken when the process
// ends, and all that are open are void when the next begins (VoidChallenges): a nonce can never count twice.
//
// The database is one SQLite file in WAL mode. All statements are SQL that PostgreSQL reads
// too: $1 parameters, ON CONFLICT, BIGINT milliseconds, BYTEA; what is SQLite's own stands in sqlite.go.
//
// Every method takes a context and ends on time, also while another process locks the file or
// the disk is full. Such an error is the Verifier's fault and never a verdict on a machine; ErrNotFound,
// ErrConflict and the challenge errors are answers.
package store
