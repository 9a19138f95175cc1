package store

import (
	"fmt"
	"testing"
	"time"

	"virt-attest/attest"
)

func nonces(all []OpenChallenge) (s string) {
	for _, o := range all {
		s += fmt.Sprintf("%x ", o.Challenge.Nonce[0])
	}
	return s
}

func TestChallenges_come_to_a_host_until_it_has_answered(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		deliver := func(what, want string) {
			t.Helper()
			all, err := s.Deliver(t.Context(), "h1", 2, t0)
			must(t, err)
			if got := nonces(all); got != want {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		for n := byte(1); n <= 3; n++ {
			put(t, s, n, "h1")
		}
		put(t, s, 4, "h2")
		deliver("the first poll", "1 2 ")
		deliver("the next", "3 ")
		deliver("and then", "")
		must(t, s.Undeliver(t.Context(), "h1", []attest.Nonce{{2}, {4}}))
		deliver("one that did not arrive", "2 ")
		_, err := s.Take(t.Context(), attest.Nonce{1}, "h1", []byte("e"), "r1", time.Minute, t0)
		must(t, err)
		n, err := s.Redeliver(t.Context(), "h1", t0)
		if err != nil || n != 2 {
			t.Errorf("%d come again, %v", n, err)
		}
		deliver("to another hostd", "2 3 ")
		n, err = s.Redeliver(t.Context(), "h1", t0.Add(2*time.Minute))
		if err != nil || n != 0 {
			t.Errorf("%d come again after their time, %v", n, err)
		}
		its, all, err := s.CountOpen(t.Context(), "h1")
		if err != nil || its != 3 || all != 4 {
			t.Errorf("%d, %d, %v", its, all, err)
		}
		must(t, s.Void(t.Context(), attest.Nonce{2}, t0))
		_, err = s.Take(t.Context(), attest.Nonce{2}, "h1", []byte("e"), "r1", time.Minute, t0)
		is(t, "a void one", err, ErrNonceTaken)
	})
}

// hostd sends again what it has no answer to.
func TestTake_tells_the_same_answer_from_another_one(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		put(t, s, 1, "h1")
		take := func(evidence string, at time.Time) error {
			_, err := s.Take(t.Context(), attest.Nonce{1}, "h1", []byte(evidence), "r1", time.Minute, at)
			return err
		}
		must(t, take("e", t0))
		is(t, "the same", take("e", t0), ErrInProgress)
		is(t, "the same, later", take("e", t0.Add(time.Hour)), ErrInProgress)
		is(t, "another", take("f", t0), ErrNonceTaken)
		o := outcome(1, t0)
		o.Report.ID, o.Evidence = nonceText(attest.Nonce{1}), nil
		must(t, s.Commit(t.Context(), o))
		is(t, "the same, done", take("e", t0), ErrAnswered)
		is(t, "another, done", take("f", t0), ErrNonceTaken)
		c, err := s.Challenge(t.Context(), attest.Nonce{1})
		must(t, err)
		if string(c.Evidence) != "e" || c.AskedBy != "alice" || len(c.Known) != 0 || c.Done.IsZero() {
			t.Errorf("%+v", c)
		}
	})
}

func TestLeases_belong_to_one_owner_until_they_end(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		put(t, s, 1, "h1")
		_, err := s.Take(t.Context(), attest.Nonce{1}, "h1", []byte("e"), "r1", time.Minute, t0)
		must(t, err)
		orphans := func(who string, at time.Time) int {
			t.Helper()
			all, err := s.Orphans(t.Context(), who, at, time.Minute, 9)
			must(t, err)
			return len(all)
		}
		if orphans("r2", t0.Add(59*time.Second)) != 0 {
			t.Error("claimed while it is another's")
		}
		kept, err := s.ExtendLease(t.Context(), "r1", []attest.Nonce{{1}, {2}}, time.Minute, t0.Add(50*time.Second))
		if err != nil || len(kept) != 1 {
			t.Errorf("%v, %v", kept, err)
		}
		if orphans("r2", t0.Add(70*time.Second)) != 0 || orphans("r2", t0.Add(2*time.Minute)) != 1 {
			t.Error("the lease does not end when it should")
		}
		kept, err = s.ExtendLease(t.Context(), "r1", []attest.Nonce{{1}}, time.Minute, t0)
		if err != nil || len(kept) != 0 {
			t.Errorf("the first owner keeps %v, %v", kept, err)
		}
		must(t, s.DropReplica(t.Context(), "r2"))
		if orphans("r3", t0.Add(2*time.Minute)) != 1 {
			t.Error("what a replica left when it ended is free for nobody")
		}
	})
}

func TestActivation_comes_once_and_only_while_its_answer_is_appraised(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		notes, cancel := s.Subscribe(TopicActivated)
		defer cancel()
		put(t, s, 1, "h1")
		n := attest.Nonce{1}
		is(t, "before the answer", s.PutActivation(t.Context(), n, "h1", []byte("items"), t0), ErrNotFound)
		is(t, "secrets before the answer", s.PutSecrets(t.Context(), n, []byte("{}")), ErrNotFound)
		_, err := s.Take(t.Context(), n, "h1", []byte("e"), "r1", time.Minute, t0)
		must(t, err)
		must(t, s.PutSecrets(t.Context(), n, []byte("{}")))
		b, err := s.Secrets(t.Context(), n)
		if err != nil || string(b) != "{}" {
			t.Errorf("%q, %v", b, err)
		}
		_, err = s.Activation(t.Context(), n)
		is(t, "nothing came yet", err, ErrNotFound)
		is(t, "another host", s.PutActivation(t.Context(), n, "h2", []byte("items"), t0), ErrNotFound)
		must(t, s.PutActivation(t.Context(), n, "h1", []byte("items"), t0))
		is(t, "a second try", s.PutActivation(t.Context(), n, "h1", []byte("other"), t0), ErrConflict)
		b, err = s.Activation(t.Context(), n)
		if err != nil || string(b) != "items" {
			t.Errorf("%q, %v", b, err)
		}
		deadline := time.After(10 * time.Second)
		for {
			select {
			case note := <-notes:
				if note.Missed || note.Key == nonceText(n) { // the store may not have listened yet
					return
				}
			case <-deadline:
				t.Fatal("nobody was told")
			}
		}
	})
}

// A subscriber that does not read must not hold up anybody, and learns that it has missed something.
func TestPublish_never_waits_for_a_subscriber(t *testing.T) {
	s := newSQLite(t).open(t)
	notes, cancel := s.Subscribe(TopicChallenge)
	for range 3 * maxNotes {
		s.bus.publish(Note{Topic: TopicChallenge, Key: "h1"})
	}
	missed := 0
	for range len(notes) {
		if n := <-notes; n.Missed {
			missed++
		}
	}
	s.bus.publish(Note{Topic: TopicChallenge, Key: "h2"})
	if n := <-notes; missed != 1 || n.Key != "h2" {
		t.Errorf("missed %d times, then %+v", missed, n)
	}
	cancel()
	if _, ok := <-notes; ok {
		t.Error("not closed")
	}
	cancel()
	other, _ := s.Subscribe(TopicEvent)
	must(t, s.Close())
	if _, ok := <-other; ok {
		t.Error("not closed with the store")
	}
}

func TestNote_longer_than_a_notification_stands_for_all(t *testing.T) {
	long := make([]byte, 9000)
	for i := range long {
		long[i] = 'x'
	}
	if n := decodeNote((Note{Topic: TopicDocument, Key: string(long)}).encode()); !n.Missed || n.Topic != TopicDocument {
		t.Errorf("%+v", n)
	}
	if n := decodeNote((Note{Topic: TopicDocument, Key: "rim/a b"}).encode()); n.Missed || n.Key != "rim/a b" {
		t.Errorf("%+v", n)
	}
}
