package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"virt-attest/internal/pgtest"
)

// isFault tells a fault of ours from an answer.
func isFault(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) || errors.Is(err, errChallenge) || errors.Is(err, ErrDone) {
		t.Errorf("%s: %v", what, err)
	}
}

// Fault F9.
func TestStore_answers_on_time_while_another_process_holds_a_lock(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s, other := d.open(t), d.open(t)
		lock, err := other.write.BeginTx(t.Context(), nil) // SQLite: nobody else writes
		must(t, err)
		if d.URL != "" {
			_, err = lock.ExecContext(t.Context(), `LOCK TABLE hosts IN ACCESS EXCLUSIVE MODE`)
			must(t, err)
		}
		start := time.Now()
		isFault(t, "locked", s.PutHost(t.Context(), host("h1"), nil, ""))
		if d := time.Since(start); d > opTimeout+time.Second {
			t.Errorf("answered after %v", d)
		}
		must(t, lock.Rollback())
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
	})
}

// Fault F9.
func TestStore_on_a_full_disk_fails_and_recovers(t *testing.T) {
	s := newSQLite(t).open(t)
	must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
	limit := func(pages int) {
		must(t, s.tx(t.Context(), opTimeout, func(t *tx) error {
			_, err := t.ExecContext(t.ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
			return err
		}))
	}
	limit(1)
	o := outcome(1, t0)
	o.Advances = []Advance{advance(0, log(0, 5000), 5000)}
	isFault(t, "full", s.Commit(t.Context(), o))
	_, err := s.Report(t.Context(), "01")
	is(t, "half a commit", err, ErrNotFound)
	limit(1 << 20)
	must(t, s.Commit(t.Context(), o))
}

// A statement in the middle of a commit fails, as when a table's disk is full (SQLSTATE 53100).
func TestCommit_that_fails_in_the_middle_leaves_nothing(t *testing.T) {
	s := newPostgres(t).open(t)
	must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
	exec := func(q string) {
		_, err := s.write.ExecContext(t.Context(), q)
		must(t, err)
	}
	exec(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$`)
	for _, table := range []string{"machines", "ima", "reports", "evidence", "results", "events"} {
		exec(`CREATE TRIGGER full_disk BEFORE INSERT ON ` + table + ` FOR EACH ROW EXECUTE FUNCTION full_disk()`)
		o := outcome(1, t0)
		o.Advances = []Advance{advance(0, log(0, 5), 5)}
		o.Report.VMs[0].State = "UNTRUSTED"
		isFault(t, table, s.Commit(t.Context(), o))
		_, err := s.Report(t.Context(), "01")
		is(t, "half a commit at "+table, err, ErrNotFound)
		m, err := s.Machine(t.Context(), vm1.String())
		if err != nil || m.Revision != 0 {
			t.Errorf("half a commit at %s: %+v, %v", table, m, err)
		}
		exec(`DROP TRIGGER full_disk ON ` + table)
	}
	must(t, s.Commit(t.Context(), outcome(1, t0)))
}

// The database server stops and comes back: calls fail on time, nothing is half there, and nobody has to be restarted.
func TestStore_goes_on_when_the_database_server_comes_back(t *testing.T) {
	c := pgtest.New(t)
	s := database{Config{URL: c.URL(t), Chain: chain}}.open(t)
	must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
	notes, cancel := s.Subscribe(TopicChallenge)
	defer cancel()
	put(t, s, 1, "h1")
	must(t, c.Stop())
	for range 3 {
		start := time.Now()
		isFault(t, "stopped", s.Commit(t.Context(), outcome(1, t0)))
		isFault(t, "not ready", s.Ready(t.Context()))
		if d := time.Since(start); d > 2*opTimeout {
			t.Errorf("answered after %v", d)
		}
	}
	must(t, c.Start(t.Context()))
	deadline := time.Now().Add(20 * time.Second)
	for s.Ready(t.Context()) != nil && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	must(t, s.Commit(t.Context(), outcome(1, t0)))
	is(t, "committed twice", s.Commit(t.Context(), outcome(1, t0)), ErrDone)
	for heard := false; !heard; { // who waits is told that something may have been missed, and hears again
		select {
		case n := <-notes:
			heard = n.Missed
		case <-time.After(time.Until(deadline)):
			t.Fatal("the store does not listen again")
		}
	}
	put(t, s, 2, "h1")
	select {
	case <-notes:
	case <-time.After(10 * time.Second):
		t.Error("nothing is heard")
	}
}

// crashing makes a process of this test end at once in the middle of a transaction.
const crashing = "STORE_TEST_CRASH"

// A process is killed between the statements of a commit: all of it or nothing is there, and the challenge is not lost.
func TestStore_after_a_kill_has_all_or_nothing(t *testing.T) {
	if url, path := os.Getenv(crashing+"_URL"), os.Getenv(crashing+"_PATH"); url+path != "" {
		crash(t, Config{URL: url, Path: path})
	}
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		put(t, s, 1, "h1")
		must(t, s.Close())
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()[:len("TestStore_after_a_kill_has_all_or_nothing")]+"$")
		cmd.Env = append(os.Environ(), crashing+"_URL="+d.URL, crashing+"_PATH="+d.Path)
		if out, err := cmd.CombinedOutput(); err == nil || !cmd.ProcessState.Exited() || cmd.ProcessState.ExitCode() != 77 {
			t.Fatalf("%v\n%s", err, out)
		}
		s = d.open(t)
		_, err := s.Report(t.Context(), "01")
		is(t, "half a commit", err, ErrNotFound)
		rows, err := s.VMsOf(t.Context(), vm1.String(), "", t0)
		if err != nil || len(rows) != 0 {
			t.Errorf("half a commit: %+v, %v", rows, err)
		}
		all, err := s.Orphans(t.Context(), "r2", t0.Add(time.Hour), time.Minute, 10)
		must(t, err)
		if len(all) != 1 || string(all[0].Evidence) != "evidence" {
			t.Fatalf("the answer is lost: %+v", all)
		}
		o := outcome(1, t0.Add(time.Hour))
		o.Report.ID = nonceText(all[0].Challenge.Nonce)
		must(t, s.Commit(t.Context(), o))
	})
}

func crash(t *testing.T, c Config) {
	s, err := Open(t.Context(), c)
	must(t, err)
	_, err = s.Take(t.Context(), challenge(1, "h1").Nonce, "h1", []byte("evidence"), "r1", time.Minute, t0)
	must(t, err)
	o := outcome(1, t0)
	o.Advances = []Advance{advance(0, log(0, 5), 5), advance(0, nil, 6)}
	o.Advances[1].ID, o.Advances[1].Revision = "other", 7 // it is asked whether it is later, in the middle of the commit
	o.Advances[1].Supersedes = func([]byte) bool { os.Exit(77); return false }
	o.Advances[0], o.Advances[1] = o.Advances[1], o.Advances[0]
	must(t, s.Commit(context.WithoutCancel(t.Context()), o))
}
