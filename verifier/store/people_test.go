package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"virt-attest/verifier/api"
)

func TestEnrolToken_admits_one_host_once(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		token := func(id, name string) {
			must(t, s.PutEnrolToken(t.Context(), api.EnrolToken{ID: id, Name: name, Created: t0, Expires: t0.Add(time.Hour)}, "hash-"+id, Trail{}))
		}
		how := func(id string) string {
			h, err := s.Host(t.Context(), id)
			must(t, err)
			return h.How
		}
		token("a", "")
		token("b", "name-h3")
		late := host("h9")
		late.LastSeen = t0.Add(2 * time.Hour)
		must(t, s.PutHost(t.Context(), late, nil, "hash-a"))
		must(t, s.PutHost(t.Context(), host("h1"), nil, "hash-a"))
		must(t, s.PutHost(t.Context(), host("h2"), nil, "hash-a"))
		must(t, s.PutHost(t.Context(), host("h4"), nil, "hash-b"))
		must(t, s.PutHost(t.Context(), host("h3"), nil, ""))
		if how("h9") != "" || how("h1") != ByToken || how("h2") != "" || how("h4") != "" || how("h3") != "" {
			t.Errorf("expired %q, first %q, second %q, of another name %q, without %q", how("h9"), how("h1"), how("h2"), how("h4"), how("h3"))
		}
		must(t, s.PutHost(t.Context(), host("h3"), nil, "hash-b"))
		if how("h3") != ByToken {
			t.Error("the token of its name does not admit a host")
		}
		list, err := s.EnrolTokens(t.Context())
		must(t, err)
		if len(list) != 2 || list[0].UsedBy != "h1" || list[1].UsedBy != "h3" {
			t.Errorf("%+v", list)
		}
	})
}

func TestHello_has_one_try_and_takes_nobodys_place(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		hello := func(client string) Hello {
			return Hello{Client: client, Host: "h1", Data: []byte("d"), Secret: "s", Until: t0.Add(time.Minute)}
		}
		must(t, s.PutHello(t.Context(), hello("a"), 2, t0))
		must(t, s.PutHello(t.Context(), hello("a"), 2, t0))
		must(t, s.PutHello(t.Context(), hello("b"), 2, t0))
		is(t, "too many", s.PutHello(t.Context(), hello("c"), 2, t0), ErrFull)
		must(t, s.PutHello(t.Context(), hello("c"), 2, t0.Add(time.Hour)))
		_, err := s.TakeHello(t.Context(), "c", "h1", t0.Add(time.Hour))
		is(t, "too late", err, ErrNotFound)
		must(t, s.PutHello(t.Context(), hello("a"), 2, t0))
		h, err := s.TakeHello(t.Context(), "a", "h1", t0)
		must(t, err)
		if string(h.Data) != "d" || h.Secret != "s" {
			t.Errorf("%+v", h)
		}
		_, err = s.TakeHello(t.Context(), "a", "h1", t0)
		is(t, "again", err, ErrNotFound)
	})
}

func TestTokens_are_good_until_they_expire_and_logins_once(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		put := func(id, kind string) {
			must(t, s.PutToken(t.Context(), Token{Token: api.Token{ID: id, Name: "ci", Role: api.RoleOperator, Tenant: "blue", Created: t0, Expires: t0.Add(time.Hour)}, Kind: kind, Hash: "hash-" + id}, Trail{}))
		}
		put("t", KindToken)
		put("l", KindLogin)
		v, err := s.TokenBySecret(t.Context(), "hash-t", t0, KindToken, KindSession)
		must(t, err)
		if v.Role != api.RoleOperator || v.Tenant != "blue" {
			t.Errorf("%+v", v)
		}
		_, err = s.TokenBySecret(t.Context(), "hash-t", t0.Add(time.Hour), KindToken)
		is(t, "expired", err, ErrNotFound)
		_, err = s.TokenBySecret(t.Context(), "hash-l", t0, KindToken, KindSession)
		is(t, "a login token as a bearer's", err, ErrNotFound)
		must(t, s.TouchToken(t.Context(), v, t0.Add(time.Second)))
		v, err = s.TokenBySecret(t.Context(), "hash-t", t0, KindToken)
		must(t, err)
		if !v.LastUsed.Equal(t0.Add(time.Second)) {
			t.Errorf("last used %v", v.LastUsed)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		logins := 0
		for i := range 16 {
			wg.Go(func() {
				_, err := s.UseLogin(t.Context(), "hash-l", Token{Token: api.Token{ID: fmt.Sprint("s", i), Created: t0, Expires: t0.Add(time.Hour)}, Hash: fmt.Sprint("session", i)}, t0, Trail{})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					logins++
				} else if !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		list, err := s.Tokens(t.Context(), KindSession)
		must(t, err)
		if logins != 1 || len(list) != 1 || list[0].Role != api.RoleOperator || list[0].Tenant != "blue" {
			t.Errorf("%d logins, sessions %+v", logins, list)
		}
		must(t, s.DeleteToken(t.Context(), "t", Trail{}))
		_, err = s.TokenBySecret(t.Context(), "hash-t", t0, KindToken)
		is(t, "deleted", err, ErrNotFound)
	})
}

func TestWebhook_begins_with_the_events_to_come_and_never_goes_back(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutEvents(t.Context(), []api.Event{{Kind: api.EventHost, Time: t0}, {Kind: api.EventHost, Time: t0}}))
		w := Webhook{Webhook: api.Webhook{ID: "w", URL: "https://a", Secret: "s", Enabled: true}}
		must(t, s.PutWebhook(t.Context(), w, Trail{}))
		must(t, s.PutEvents(t.Context(), []api.Event{{Kind: api.EventVM, Time: t0, Tenant: "blue"}}))
		got, err := s.Webhook(t.Context(), "w")
		must(t, err)
		n, err := s.CountEvents(t.Context(), got.Cursor, []string{api.EventVM}, "blue", 10)
		if err != nil || got.Cursor != 2 || n != 1 || got.Secret != "s" {
			t.Errorf("%+v, %d to come, %v", got, n, err)
		}
		must(t, s.Delivered(t.Context(), "w", 3, t0, 0, ""))
		must(t, s.Delivered(t.Context(), "w", 2, t0, 1, "late"))
		w.URL = "https://b"
		must(t, s.PutWebhook(t.Context(), w, Trail{}))
		got, err = s.Webhook(t.Context(), "w")
		must(t, err)
		if got.Cursor != 3 || got.URL != "https://b" {
			t.Errorf("%+v", got)
		}
		must(t, s.DeleteWebhook(t.Context(), "w", Trail{}))
		is(t, "deleted", s.Delivered(t.Context(), "w", 4, t0, 0, ""), ErrNotFound)
	})
}

func TestJobs_stats_presence_and_replicas_are_kept(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		j := &api.Job{ID: "j", Kind: "impact", State: "queued", Created: t0}
		must(t, s.PutJob(t.Context(), j, "blue"))
		j.State, j.Result, j.Finished, j.Done, j.Total = "done", []byte(`{"a":1}`), t0.Add(time.Second), 10, 10
		must(t, s.PutJob(t.Context(), j, "blue"))
		if failed, err := s.FailJob(t.Context(), "j", "too late", t0); failed || err != nil {
			t.Errorf("a job that was done has failed: %v, %v", failed, err)
		}
		got, tenant, err := s.Job(t.Context(), "j")
		if err != nil || tenant != "blue" || got.Done != 10 || string(got.Result) != `{"a":1}` {
			t.Errorf("%+v %q %v", got, tenant, err)
		}
		for m := range int64(3) {
			must(t, s.PutStat(t.Context(), Stat{Minute: m, Replica: "r1", Data: []byte("0")}))
			must(t, s.PutStat(t.Context(), Stat{Minute: m, Replica: "r1", Data: []byte("1")}))
		}
		stats, err := s.Stats(t.Context(), 1, 2)
		if err != nil || len(stats) != 2 || string(stats[0].Data) != "1" || stats[0].Minute != 1 {
			t.Errorf("%+v %v", stats, err)
		}
		must(t, s.PutPresence(t.Context(), "r1", []Seen{{"h2", "i1", t0}, {"h1", "i1", t0.Add(time.Second)}}))
		must(t, s.PutPresence(t.Context(), "r2", []Seen{{"h1", "i0", t0}, {"h2", "i2", t0.Add(time.Minute)}}))
		on, err := s.Online(t.Context(), []string{"h1", "h2", "h3"})
		if err != nil || len(on) != 2 || on["h1"] != (Presence{"r1", "i1", t0.Add(time.Second)}) || on["h2"].Replica != "r2" {
			t.Errorf("%+v %v", on, err)
		}
		r := api.Replica{ID: "r1", Host: "m", Version: "v", Started: t0, LastSeen: t0, Hosts: 2}
		known, err := s.PutReplica(t.Context(), r)
		if err != nil || known {
			t.Errorf("%v %v", known, err)
		}
		known, err = s.PutReplica(t.Context(), r)
		if err != nil || !known {
			t.Errorf("%v %v", known, err)
		}
		lost, err := s.DropReplicas(t.Context(), t0.Add(time.Minute))
		if err != nil || len(lost) != 1 || lost[0] != r {
			t.Errorf("%+v %v", lost, err)
		}
		lost, err = s.DropReplicas(t.Context(), t0.Add(time.Minute))
		if err != nil || len(lost) != 0 {
			t.Errorf("lost twice: %+v %v", lost, err)
		}
	})
}

func TestPrune_drops_what_has_had_its_time_and_never_the_audit_log(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		put(t, s, 1, "h1")
		put(t, s, 2, "h1")
		_, err := s.Take(t.Context(), challenge(1, "h1").Nonce, "h1", []byte("e"), "r1", time.Minute, t0)
		must(t, err)
		must(t, s.PutAudit(t.Context(), api.AuditEntry{Time: t0, Action: "a"}))
		must(t, s.PutToken(t.Context(), Token{Token: api.Token{ID: "t", Expires: t0}, Kind: KindToken, Hash: "h"}, Trail{}))
		must(t, s.PutStat(t.Context(), Stat{Minute: t0.Unix() / 60, Replica: "r"}))
		must(t, s.PutJob(t.Context(), &api.Job{ID: "j", Created: t0}, ""))
		must(t, s.Prune(t.Context(), Retention{Reports: 1, Evidence: 1, Age: time.Hour, Events: time.Hour}, t0.Add(2*time.Hour)))
		_, err = s.TokenBySecret(t.Context(), "h", t0.Add(-time.Hour), KindToken)
		is(t, "a token that has just expired", err, nil)
		must(t, s.Prune(t.Context(), Retention{Reports: 1, Evidence: 1, Age: time.Hour, Events: time.Hour}, t0.Add(90*24*time.Hour)))
		_, err = s.Challenge(t.Context(), challenge(1, "h1").Nonce)
		is(t, "an answer that nobody has appraised", err, nil)
		_, err = s.Challenge(t.Context(), challenge(2, "h1").Nonce)
		is(t, "a challenge long ended", err, ErrNotFound)
		_, err = s.TokenBySecret(t.Context(), "h", t0.Add(-time.Hour), KindToken)
		is(t, "an old token", err, ErrNotFound)
		_, _, err = s.Job(t.Context(), "j")
		is(t, "an old job", err, ErrNotFound)
		events, err1 := s.Events(t.Context(), api.EventFilter{}, "")
		stats, err2 := s.Stats(t.Context(), 0, 1<<40)
		log, err3 := s.Audit(t.Context(), 0, 10)
		if len(events) != 0 || len(stats) != 0 || len(log) != 1 {
			t.Errorf("%d events, %d stats, %d entries; %v", len(events), len(stats), len(log), errors.Join(err1, err2, err3))
		}
	})
}

func TestBackup_made_while_others_write_is_whole(t *testing.T) {
	d := newSQLite(t)
	s := d.open(t)
	must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := range 200 {
			select {
			case <-stop:
				return
			default:
			}
			must(t, s.PutEvents(t.Context(), []api.Event{{Kind: api.EventHost, Time: t0, Text: fmt.Sprint(i)}}))
		}
	})
	backup := filepath.Join(t.TempDir(), "it's a backup")
	must(t, s.Backup(t.Context(), backup))
	close(stop)
	wg.Wait()
	if err := s.Backup(t.Context(), backup); !errors.Is(err, os.ErrExist) {
		t.Errorf("a backup was overwritten: %v", err)
	}
	st, err := os.Stat(backup)
	must(t, err)
	if st.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v", st.Mode())
	}
	if err := RestoreFile(t.Context(), backup, d.Path); err == nil {
		t.Error("a database that is in use was overwritten")
	}
	to := filepath.Join(t.TempDir(), "restored.db")
	must(t, RestoreFile(t.Context(), backup, to))
	r := database{Config{Path: to, Chain: chain}}.open(t)
	_, err = r.Host(t.Context(), "h1")
	must(t, err)
	b, err := os.ReadFile(backup)
	must(t, err)
	bad := filepath.Join(t.TempDir(), "bad")
	for name, content := range map[string][]byte{"cut": b[:len(b)/2], "empty": nil, "something else": []byte("hello")} {
		must(t, os.WriteFile(bad, content, 0o600))
		to := filepath.Join(t.TempDir(), "v.db")
		if err := RestoreFile(t.Context(), bad, to); err == nil {
			t.Errorf("%s was restored", name)
		}
		if left, err := os.ReadDir(filepath.Dir(to)); err != nil || len(left) != 0 {
			t.Errorf("%s left %v, %v", name, left, err)
		}
	}
}
