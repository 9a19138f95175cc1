package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Store is the database. Its methods are safe for concurrent use.
type Store struct {
	write   *sql.DB // commits are on disk
	brief   *sql.DB // for what ends with the process: challenges
	read    *sql.DB
	writing chan struct{} // held by the one writer
}

// The answers of a Store that are no faults.
var (
	ErrNotFound = errors.New("store: not found")
	ErrConflict = errors.New("store: conflicts with what is on record")
)

// Close ends the database's use. Calls still under way fail.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.brief, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Ready reports whether the database answers.
func (s *Store) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var n int
	return wrap(s.read.QueryRowContext(ctx, `SELECT COUNT(*) FROM goose_db_version`).Scan(&n))
}

// tx runs f in one transaction for writing, within limit. It is on disk when the call returns.
func (s *Store) tx(ctx context.Context, limit time.Duration, f func(*tx) error) error {
	return s.txOn(ctx, s.write, limit, f)
}

func (s *Store) txOn(ctx context.Context, db *sql.DB, limit time.Duration, f func(*tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return wrap(ctx.Err())
	}
	t, err := db.BeginTx(ctx, nil)
	if err != nil {
		return wrap(err)
	}
	if err := f(&tx{ctx, t}); err != nil {
		return errors.Join(wrap(err), ignoreDone(t.Rollback()))
	}
	return wrap(t.Commit())
}

// tx is a transaction with its context.
type tx struct {
	ctx context.Context
	*sql.Tx
}

// exec runs a statement and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	r, err := t.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// run runs statements that share one argument.
func (t *tx) run(arg any, queries ...string) error {
	for _, q := range queries {
		if _, err := t.exec(q, arg); err != nil {
			return err
		}
	}
	return nil
}

// listOf runs a query of an ordinary answer's size and gives what scan makes of each row.
func listOf[T any](ctx context.Context, db *sql.DB, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var all []T
	err := rows(ctx, db, func(r *sql.Rows) error {
		v, err := scan(r)
		all = append(all, v)
		return err
	}, query, args...)
	return all, err
}

// rows runs a query and hands each row to scan.
func rows(ctx context.Context, db *sql.DB, scan func(*sql.Rows) error, query string, args ...any) error {
	r, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return wrap(err)
	}
	defer func() { _ = r.Close() }()
	for r.Next() {
		if err := scan(r); err != nil {
			return wrap(err)
		}
	}
	return wrap(r.Err())
}

// wrap names the package in an error and turns the database's own answers into ours.
func wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict), errors.Is(err, errChallenge):
		return err
	case isConflict(err):
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return fmt.Errorf("store: %w", err)
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
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
