package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// both opens two stores on one PostgreSQL, as two replicas do.
func both(t *testing.T) (a, b *Store) {
	t.Helper()
	d := newPostgres(t)
	stores := make([]*Store, 2)
	var wg sync.WaitGroup
	for i := range stores {
		wg.Go(func() {
			s, err := Open(t.Context(), d.Config)
			if err != nil {
				t.Error(err)
				return
			}
			stores[i] = s
			t.Cleanup(func() { _ = s.Close() })
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return stores[0], stores[1]
}

func put(t *testing.T, s *Store, n byte, host string) {
	t.Helper()
	must(t, s.PutChallenge(t.Context(), &OpenChallenge{Challenge: challenge(n, host), AskedBy: "alice", Known: []byte("known"), Created: t0}))
}

func TestOpen_by_several_replicas_at_once_makes_the_tables_once(t *testing.T) {
	d := newPostgres(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := Open(t.Context(), d.Config)
			if err != nil {
				t.Error(err)
				return
			}
			if err := errors.Join(s.Ready(t.Context()), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Attack 5 with replicas: whichever of them an answer reaches, and however often, it counts once.
func TestTake_at_two_replicas_spends_a_nonce_once(t *testing.T) {
	a, b := both(t)
	put(t, a, 1, "h1")
	var mu sync.Mutex
	taken := 0
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			s := []*Store{a, b}[i%2]
			_, err := s.Take(t.Context(), attest.Nonce{1}, "h1", []byte{byte(i)}, fmt.Sprint(i%2), time.Minute, t0)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				taken++
			case !errors.Is(err, ErrNonceTaken):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if taken != 1 {
		t.Errorf("taken %d times", taken)
	}
}

func TestDeliver_at_two_replicas_gives_each_challenge_once(t *testing.T) {
	a, b := both(t)
	for n := byte(1); n <= 20; n++ {
		put(t, a, n, "h1")
	}
	var mu sync.Mutex
	seen := make(map[attest.Nonce]int)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			all, err := []*Store{a, b}[i%2].Deliver(t.Context(), "h1", 5, t0)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, o := range all {
				seen[o.Challenge.Nonce]++
			}
		})
	}
	wg.Wait()
	for n, times := range seen {
		if times != 1 {
			t.Errorf("%v was delivered %d times", n, times)
		}
	}
}

// A replica dies while it appraises: exactly one other goes on from the stored evidence.
func TestOrphans_are_claimed_by_one_replica(t *testing.T) {
	a, b := both(t)
	const n = 12
	for i := byte(1); i <= n; i++ {
		put(t, a, i, "h1")
		_, err := a.Take(t.Context(), attest.Nonce{i}, "h1", []byte("evidence"), "dead", time.Second, t0)
		must(t, err)
	}
	later := t0.Add(2 * time.Second)
	var mu sync.Mutex
	owners := make(map[attest.Nonce][]string)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			name := fmt.Sprint("r", i%2)
			all, err := []*Store{a, b}[i%2].Orphans(t.Context(), name, later, time.Minute, 4)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, o := range all {
				if string(o.Evidence) != "evidence" || string(o.Known) != "known" || o.Owner != name {
					t.Errorf("%+v", o)
				}
				owners[o.Challenge.Nonce] = append(owners[o.Challenge.Nonce], name)
			}
		})
	}
	wg.Wait()
	for nonce, who := range owners {
		if len(who) != 1 {
			t.Errorf("%v was claimed by %v", nonce, who)
		}
	}
	if len(owners) != n {
		t.Errorf("%d of %d were claimed", len(owners), n)
	}
}

func TestOverdue_challenges_are_claimed_by_one_replica(t *testing.T) {
	a, b := both(t)
	put(t, a, 1, "h1")
	var mu sync.Mutex
	got := 0
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			all, err := []*Store{a, b}[i%2].Overdue(t.Context(), fmt.Sprint("r", i), t0.Add(2*time.Minute), time.Minute, 10)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got += len(all)
		})
	}
	wg.Wait()
	if got != 1 {
		t.Errorf("claimed %d times", got)
	}
}

// Two replicas appraise one answer, as when a lease ended too early: there is one verdict.
func TestCommit_at_two_replicas_makes_one_verdict(t *testing.T) {
	a, b := both(t)
	must(t, a.PutHost(t.Context(), host("h1"), nil, ""))
	var mu sync.Mutex
	done := 0
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			err := []*Store{a, b}[i%2].Commit(t.Context(), outcome(1, t0))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				done++
			case !errors.Is(err, ErrDone):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if done != 1 {
		t.Errorf("committed %d times", done)
	}
	events, err := a.Events(t.Context(), api.EventFilter{Kinds: []string{api.EventVerdict}}, "")
	must(t, err)
	if len(events) != 2 {
		t.Errorf("%+v", events)
	}
}

func TestEvents_and_audit_of_two_replicas_have_no_gaps_and_one_chain(t *testing.T) {
	a, b := both(t)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			s := []*Store{a, b}[i%2]
			if err := errors.Join(s.PutEvents(t.Context(), []api.Event{{Kind: api.EventReplica, Time: t0}, {Kind: api.EventReplica, Time: t0}}),
				s.PutAudit(t.Context(), api.AuditEntry{Time: t0, Action: fmt.Sprint(i)})); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	events, err := b.Events(t.Context(), api.EventFilter{}, "")
	must(t, err)
	for i, e := range events {
		if e.ID != int64(i+1) {
			t.Fatalf("event %d has ID %d", i, e.ID)
		}
	}
	prev, n := "", int64(0)
	must(t, b.EachAudit(t.Context(), 0, func(e api.AuditEntry) error {
		if n++; e.Seq != n || e.Prev != prev {
			t.Errorf("entry %d: %+v", n, e)
		}
		prev = e.Hash
		return nil
	}))
	if len(events) != 80 || n != 40 {
		t.Errorf("%d events, %d entries", len(events), n)
	}
}

func TestSubscribe_hears_of_what_another_replica_committed(t *testing.T) {
	a, b := both(t)
	notes, cancel := b.Subscribe(TopicChallenge)
	defer cancel()
	for deadline := time.After(20 * time.Second); ; {
		put(t, a, byte(time.Now().UnixNano()), "h1") // until the other one listens
		select {
		case n := <-notes:
			if n.Key == "h1" {
				return
			}
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatal("nothing was heard")
		}
	}
}
