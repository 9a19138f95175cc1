package jobs

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"virt-attest/internal/pgtest"
)

// onEach runs a test on a file and on PostgreSQL; open opens the same database each time.
func onEach(t *testing.T, f func(t *testing.T, open func(map[string]Work) *Queue)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jobs.db")
		f(t, func(work map[string]Work) *Queue { return open(t, Config{Path: path, Work: work}) })
	})
	t.Run("postgres", func(t *testing.T) {
		pool, err := pgxpool.New(t.Context(), pgtest.URL(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		f(t, func(work map[string]Work) *Queue { return open(t, Config{Pool: pool, Work: work}) })
	})
}

const testTries = 2

func open(t *testing.T, c Config) *Queue {
	t.Helper()
	c.Tries = testTries
	c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	q, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// record is what tasks were done.
type record struct {
	mu   sync.Mutex
	done []string
}

func (r *record) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, s)
}

func (r *record) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.done)
}

func TestAdd_begins_work_at_once(t *testing.T) {
	onEach(t, func(t *testing.T, open func(map[string]Work) *Queue) {
		var r record
		q := open(map[string]Work{"a": {Do: func(_ context.Context, o string) error { r.add(o); return nil }}})
		defer func() { _ = q.Close() }()
		time.Sleep(300 * time.Millisecond) // idle
		began := time.Now()
		if err := q.Add(t.Context(), "a", "x"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the task is done", func() bool { return len(r.list()) == 1 })
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("took %v", d)
		}
		if err := q.Add(t.Context(), "b", ""); err == nil {
			t.Error("a task of no known kind was taken")
		}
	})
}

func TestAdd_does_not_do_twice_what_is_waiting_and_After_tells_when_to_look_again(t *testing.T) {
	onEach(t, func(t *testing.T, open func(map[string]Work) *Queue) {
		var r record
		hold := make(chan struct{})
		q := open(map[string]Work{"a": {
			Do:    func(_ context.Context, o string) error { r.add("do " + o); <-hold; return nil },
			After: func(_ context.Context, o string) { r.add("after " + o) },
		}})
		defer func() { _ = q.Close() }()
		for range 3 {
			if err := q.Add(t.Context(), "a", "x"); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "it has begun", func() bool { return len(r.list()) == 1 })
		if err := q.Add(t.Context(), "a", "x"); err != nil {
			t.Fatal(err)
		}
		close(hold)
		eventually(t, "it has ended", func() bool { return len(r.list()) == 2 })
		time.Sleep(300 * time.Millisecond)
		if got := r.list(); !slices.Equal(got, []string{"do x", "after x"}) {
			t.Errorf("%q", got)
		}
	})
}

func TestDo_that_fails_or_panics_is_done_again_and_Again_is_no_failure(t *testing.T) {
	onEach(t, func(t *testing.T, open func(map[string]Work) *Queue) {
		var r record
		tries := 0
		q := open(map[string]Work{"a": {Do: func(context.Context, string) error {
			tries++
			switch tries {
			case 1:
				return Again(time.Millisecond)
			case 2:
				r.add("done")
			}
			return nil
		}}, "p": {Do: func(context.Context, string) error { r.add("p"); panic("x") }}, "f": {Do: func(context.Context, string) error { r.add("f"); return errors.New("no") }}})
		defer func() { _ = q.Close() }()
		for _, k := range []string{"a", "p", "f"} {
			if err := q.Add(t.Context(), k, ""); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all of it is done, and what failed a second time", func() bool {
			l := r.list()
			n := map[string]int{}
			for _, s := range l {
				n[s]++
			}
			return n["done"] == 1 && n["p"] >= 2 && n["f"] >= 2
		})
	})
}

func TestGiveUp_is_told_the_error_of_the_last_attempt_once(t *testing.T) {
	onEach(t, func(t *testing.T, open func(map[string]Work) *Queue) {
		var r record
		up := func(_ context.Context, o string, why error) error { r.add(o + " given up: " + why.Error()); return nil }
		q := open(map[string]Work{
			"f": {Do: func(context.Context, string) error { r.add("f"); return errors.New("no") }, GiveUp: up},
			"p": {Do: func(context.Context, string) error { r.add("p"); panic("x") }, GiveUp: up},
			"g": {Do: func(context.Context, string) error { return Again(time.Hour) }, GiveUp: up},
		})
		defer func() { _ = q.Close() }()
		for _, k := range []string{"f", "p", "g"} {
			if err := q.Add(t.Context(), k, "of "+k); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "both are given up", func() bool {
			return slices.Contains(r.list(), "of f given up: no") && slices.Contains(r.list(), "of p given up: panic: x")
		})
		time.Sleep(200 * time.Millisecond)
		if got := r.list(); len(got) != 2*testTries+2 {
			t.Errorf("%q", got)
		}
	})
}

func TestEvery_is_done_without_being_asked_and_what_was_waiting_survives_a_restart(t *testing.T) {
	onEach(t, func(t *testing.T, open func(map[string]Work) *Queue) {
		var r record
		hold := make(chan struct{})
		work := map[string]Work{"each": {Every: time.Hour, Do: func(context.Context, string) error { r.add("e"); return nil }},
			"a": {Do: func(ctx context.Context, o string) error {
				select {
				case <-hold:
					r.add(o)
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}}}
		q := open(work)
		eventually(t, "it is done at the start", func() bool { return len(r.list()) > 0 })
		for _, o := range []string{"1", "2", "3", "4"} {
			if err := q.Add(t.Context(), "a", o); err != nil {
				t.Fatal(err)
			}
		}
		close(hold)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = open(work)
		defer func() { _ = q.Close() }()
		eventually(t, "all four are done", func() bool {
			l := r.list()
			return slices.Contains(l, "1") && slices.Contains(l, "2") && slices.Contains(l, "3") && slices.Contains(l, "4")
		})
	})
}
