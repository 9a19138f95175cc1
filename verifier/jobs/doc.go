// Package jobs carries the Verifier's deferred work: re-appraisals, impacts, deliveries to webhooks, what is
// to be done every so often. It is River on PostgreSQL, where all replicas share the work, or on an SQLite
// file of its own for one process.
//
// A task is a kind and an object, both words. It is done at least once: whoever does it may be killed in
// the middle, and another replica begins again within about two minutes. So what a task has done
// already must be on record (a cursor, a row that is not outdated any more), and a task ends within
// MaxRun: one that has more to do says Again, and goes on where it was.
//
// Tasks that are added and are there already (waiting, or being done) are not added twice. Since one that is being
// done may not see what was added for it, Work.After is called when a task has ended, and looks.
package jobs
