package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

// Everything that is SQLite's own is in this file.

//go:embed migrations/*.sql
var migrations embed.FS

// Open opens the database file at path, makes it if there is none, and brings its tables up
// to date. The file and those beside it are for their owner alone.
func Open(ctx context.Context, path string) (*Store, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite itself would leave it to the umask
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{writing: make(chan struct{}, 1)}
	var err1, err2, err3 error
	s.write, err1 = open(path, "immediate", "FULL", 1)
	s.brief, err2 = open(path, "immediate", "NORMAL", 1)
	s.read, err3 = open(path, "deferred", "FULL", readers)
	if err := errors.Join(err1, err2, err3); err != nil {
		_ = s.Close()
		return nil, err
	}
	if err := s.migrate(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("store: %s: %w", path, err)
	}
	return s, nil
}

// open makes a pool. SQLite has one writer at a time: each pool for writing has one connection, and
// writers of this process wait for each other in Store.writing and not in the busy handler. With
// synchronous FULL a commit is on disk when it returns, with NORMAL it may be lost in a power cut, and
// everything after it with it.
func open(path, lock, synchronous string, conns int) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{"_txlock": {lock}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"journal_mode(WAL)", "synchronous(" + synchronous + ")", "foreign_keys(ON)", "trusted_schema(OFF)",
		fmt.Sprintf("journal_size_limit(%d)", maxJournal),
	}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func (s *Store) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.write, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// isConflict tells a broken uniqueness or reference rule from a fault.
func isConflict(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlitelib.SQLITE_CONSTRAINT
}

// busyTimeout is how long a statement waits for another process's lock.
const busyTimeout = 2 * time.Second
