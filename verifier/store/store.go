package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"virt-attest/verifier/api"
)

// Config says which database is opened. One of Path and URL is given.
type Config struct {
	Path  string // of an SQLite file
	URL   string // of a PostgreSQL database: postgres://…, or key=value words
	Conns int    // connections to PostgreSQL, or for reading from SQLite; 0: DefaultConns

	// Chain gives e its Prev and Hash, where prev is the entry before (verifier/audit). The entry that
	// has no other before it gets a zero prev. Nil: there is no audit log, and nothing that belongs there can be done.
	Chain func(prev, e api.AuditEntry) api.AuditEntry
	Log   *slog.Logger // of what becomes of connections; nil: nowhere

	// Observe is told how long each use of the database took, with what it waited for. Quick, and safe for
	// concurrent use; nil: nobody is told.
	Observe func(write bool, took time.Duration)
}

// Store is the database. Its methods are safe for concurrent use.
type Store struct {
	dialect dialect
	write   writer // commits are on disk
	brief   writer // for what need not outlive a power cut: challenges
	read    *sql.DB
	pool    *pgxpool.Pool // PostgreSQL's
	path    string        // SQLite's
	url     string        // PostgreSQL's, with its password
	writing chan struct{} // held by the one writer; nil where there may be many
	texts   sync.Map      // SQL as the database reads it, by how it stands here or by shape
	bus     bus
	chain   func(prev, e api.AuditEntry) api.AuditEntry
	log     *slog.Logger
	observe func(write bool, took time.Duration)

	cancel context.CancelFunc // of what runs beside
	wg     sync.WaitGroup
}

// The answers of a Store that are no faults.
var (
	ErrNotFound = errors.New("store: not found")
	ErrConflict = errors.New("store: conflicts with what is on record")
	ErrDone     = errors.New("store: the report of this challenge is there already")
	ErrChanged  = errors.New("store: is not any more as the caller saw it")
	ErrFull     = errors.New("store: too many of these are on record")
)

// Open opens the database, makes its tables or brings them up to date, and listens for what other
// processes publish.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{chain: c.Chain, log: c.Log, observe: c.Observe}
	if s.observe == nil {
		s.observe = func(bool, time.Duration) {}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if c.Conns <= 0 {
		c.Conns = DefaultConns
	}
	switch {
	case (c.Path == "") == (c.URL == ""):
		return nil, errors.New("store: exactly one of a file and a database URL is needed")
	case c.Path != "":
		s.dialect = sqliteDialect{}
	default:
		s.dialect = postgresDialect{}
	}
	var run context.Context
	run, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	err := s.dialect.open(ctx, s, c)
	if err == nil {
		err = s.dialect.migrate(ctx, s)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: %w", err), s.Close())
	}
	s.dialect.listen(run, s)
	return s, nil
}

// Close ends the database's use. Calls still under way fail.
func (s *Store) Close() error {
	s.cancel()
	s.wg.Wait()
	s.bus.close()
	if s.writing != nil {
		s.writing <- struct{}{}
		defer func() { <-s.writing }()
	}
	var errs []error
	seen := map[*sql.DB]bool{nil: true}
	for _, db := range []*sql.DB{s.read, s.brief.DB, s.write.DB} {
		if !seen[db] {
			seen[db] = true
			errs = append(errs, db.Close())
		}
	}
	errs = append(errs, s.brief.release(), s.write.release())
	if s.pool != nil {
		s.pool.Close()
	}
	return errors.Join(errs...)
}

// Ready reports whether the database answers.
func (s *Store) Ready(ctx context.Context) error {
	var n int
	return s.one(ctx, opTimeout, `SELECT COUNT(*) FROM goose_db_version`, nil, &n)
}

// The databases.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

// Dialect names the database: SQLite or Postgres.
func (s *Store) Dialect() string { return s.dialect.name() }

// Pool is the connections to PostgreSQL, for others who keep tables there; nil on SQLite.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// JobsPath is the SQLite file for the tables of deferred work, beside the main one so that neither waits for the
// other's writer; "" on PostgreSQL.
func (s *Store) JobsPath() string {
	if s.path == "" {
		return ""
	}
	return s.path + ".jobs"
}

// dialect is what differs between the databases.
type dialect interface {
	name() string
	open(ctx context.Context, s *Store, c Config) error
	migrate(ctx context.Context, s *Store) error
	tune(t *tx) error                     // tables for how they are used, when they are new
	listen(ctx context.Context, s *Store) // until ctx ends, where others may publish
	text(query string) string             // a statement as this database reads it
	arg(v any) any                        // an argument as its driver takes it
	place(n int) string                   // of the n-th argument in a list of VALUES
	begun(t *tx, brief bool) error        // what a transaction begins with
	insert(t *tx, head, tail string, rows [][]any) (int64, error)
	notify(t *tx, n Note) error // within the transaction
	isConflict(err error) bool  // a broken uniqueness or reference rule
	isPassing(err error) bool   // the transaction may succeed when it is tried again
	backup(ctx context.Context, s *Store, path string) error
}

// wrap names the package in an error and turns the database's own answers into ours.
func (s *Store) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case s.isAnswer(err) && !s.dialect.isConflict(err):
		return err
	case s.dialect.isConflict(err):
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return fmt.Errorf("store: %w", err)
}

// isAnswer tells what a transaction says from what happened to it.
func (s *Store) isAnswer(err error) bool {
	for _, a := range []error{ErrNotFound, ErrConflict, ErrDone, ErrChanged, ErrFull, errChallenge, sql.ErrNoRows} {
		if errors.Is(err, a) {
			return true
		}
	}
	return s.dialect.isConflict(err)
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}
