package store

import (
	"path/filepath"
	"testing"

	"virt-attest/internal/pgtest"
	"virt-attest/verifier/api"
)

// database is an empty one of a test's own.
type database struct {
	Config
}

func newSQLite(t testing.TB) database {
	t.Helper()
	return database{Config{Path: filepath.Join(t.TempDir(), "verifier.db"), Chain: chain}}
}

func newPostgres(t testing.TB) database {
	t.Helper()
	return database{Config{URL: pgtest.URL(t), Chain: chain}}
}

// chain is a hash chain that a reader can check: verifier/audit has the real one.
func chain(prev, e api.AuditEntry) api.AuditEntry {
	e.Prev = prev.Hash
	e.Hash = prev.Hash + "/" + e.Action
	return e
}

func (d database) open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), d.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (d database) reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return d.open(t)
}

// forEach runs a test on both databases: they have to behave alike.
func forEach(t *testing.T, f func(t *testing.T, d database)) {
	t.Run(SQLite, func(t *testing.T) { f(t, newSQLite(t)) })
	t.Run(Postgres, func(t *testing.T) { f(t, newPostgres(t)) })
}
