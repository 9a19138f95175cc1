package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var migrations embed.FS

// sqliteDialect is everything that is SQLite's own.
type sqliteDialect struct{}

func (sqliteDialect) name() string { return SQLite }

// open opens the database file and makes it if there is none. The file and those beside it are for their
// owner alone. SQLite has one writer at a time: each pool for writing has one connection, and writers of
// this process wait for each other in Store.writing and not in the busy handler.
func (sqliteDialect) open(_ context.Context, s *Store, c Config) error {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite itself would leave it to the umask
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	s.path, s.writing = path, make(chan struct{}, 1)
	var err1, err2, err3 error
	s.write.single, s.brief.single = true, true
	s.write.DB, err1 = openFile(path, "immediate", "FULL", 1)
	s.brief.DB, err2 = openFile(path, "immediate", "NORMAL", 1)
	s.read, err3 = openFile(path, "deferred", "FULL", c.Conns)
	return errors.Join(err1, err2, err3)
}

// openFile makes a pool. With synchronous FULL a commit is on disk when it returns, with NORMAL it may be lost in
// a power cut, and everything after it with it.
func openFile(path, lock, synchronous string, conns int) (*sql.DB, error) {
	q := url.Values{"_txlock": {lock}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"journal_mode(WAL)", "synchronous(" + synchronous + ")", "foreign_keys(ON)", "trusted_schema(OFF)",
		fmt.Sprintf("journal_size_limit(%d)", maxJournal), fmt.Sprintf("wal_autocheckpoint(%d)", checkpoint),
	}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func (sqliteDialect) migrate(ctx context.Context, s *Store) error {
	p, err := provider(goose.DialectSQLite3, s)
	if err != nil {
		return err
	}
	if _, err = p.Up(ctx); err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return nil
}

func provider(d goose.Dialect, s *Store, more ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(d, s.write.DB, files, append(more, goose.WithDisableGlobalRegistry(true), goose.WithGoMigrations(s.fill(), s.tune()))...)
}

func (sqliteDialect) listen(context.Context, *Store) {}

var (
	anyList = regexp.MustCompile(`= ANY\((\$\d+)\)`)
	rowLock = regexp.MustCompile(` FOR (NO KEY )?UPDATE( OF \w+)?( SKIP LOCKED)?`)
)

// text: a list is a JSON array, and rows need no locks where there is one writer.
func (sqliteDialect) text(query string) string {
	return rowLock.ReplaceAllString(anyList.ReplaceAllString(query, `IN (SELECT value FROM json_each($1))`), "")
}

// place: parameters with a name or a number are looked up one by one in a list of all, which for a thousand of them costs
// more than the rows; these have none.
func (sqliteDialect) place(int) string { return "?" }

func (sqliteDialect) arg(v any) any {
	if l, ok := v.(list); ok {
		b, err := json.Marshal([]string(l))
		if err != nil {
			return err.Error() // cannot happen, and is no JSON
		}
		return string(b)
	}
	return v
}

func (sqliteDialect) tune(*tx) error { return nil }

func (sqliteDialect) begun(*tx, bool) error { return nil }

func (sqliteDialect) insert(t *tx, head, tail string, rows [][]any) (int64, error) {
	return t.insertValues(head, tail, rows)
}

func (sqliteDialect) notify(*tx, Note) error { return nil } // Store.committed does it

func (sqliteDialect) isConflict(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlitelib.SQLITE_CONSTRAINT
}

func (sqliteDialect) isPassing(error) bool { return false }

// backup makes a copy in one read transaction, while others write.
func (sqliteDialect) backup(ctx context.Context, s *Store, path string) error {
	_, err := s.read.ExecContext(ctx, `VACUUM INTO $1`, path)
	return err
}

// checkFile holds a database file to what a backup must be, and brings its tables up to date.
func checkFile(ctx context.Context, path string) error {
	db, err := openFile(path, "deferred", "FULL", 1)
	if err != nil {
		return err
	}
	var found string
	err = db.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&found)
	if err == nil && found != "ok" {
		err = fmt.Errorf("the backup is damaged: %s", found)
	}
	var n int
	if err == nil {
		if err = db.QueryRowContext(ctx, `SELECT COUNT(*) FROM goose_db_version`).Scan(&n); err != nil {
			err = fmt.Errorf("this is no database of the Verifier: %w", err)
		}
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	s, err := Open(ctx, Config{Path: path})
	if err != nil {
		return err
	}
	return s.Close()
}
