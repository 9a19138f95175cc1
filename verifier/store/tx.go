package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"virt-attest/verifier/api"
)

// Trail is what a change leaves besides itself, in the same transaction.
type Trail struct {
	Audit  *api.AuditEntry // time, actor, action, object, detail; the rest is filled in. Nil: none
	Events []api.Event     // without IDs
}

// list is a list of texts as one argument, for `= ANY($n)`.
type list []string

// tx is a transaction with its context.
type tx struct {
	ctx    context.Context
	s      *Store
	w      *writer
	notes  []Note
	events []api.Event
	audits []api.AuditEntry
	*sql.Tx
}

// tx runs f in one transaction for writing, within limit. It is on disk when the call returns. f may be
// called again where the database says that another try may succeed.
func (s *Store) tx(ctx context.Context, limit time.Duration, f func(*tx) error) error {
	return s.transact(ctx, false, limit, f)
}

// briefTx is tx for what may be lost in a power cut, with all that came after it.
func (s *Store) briefTx(ctx context.Context, f func(*tx) error) error {
	return s.transact(ctx, true, opTimeout, f)
}

func (s *Store) transact(ctx context.Context, brief bool, limit time.Duration, f func(*tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer s.timed(true)()
	if s.writing != nil {
		select {
		case s.writing <- struct{}{}:
			defer func() { <-s.writing }()
		case <-ctx.Done():
			return s.wrap(ctx.Err())
		}
	}
	for try := 1; ; try++ {
		err := s.try(ctx, brief, f)
		if err == nil || try == txTries || !s.dialect.isPassing(err) || ctx.Err() != nil {
			return s.wrap(err)
		}
	}
}

func (s *Store) try(ctx context.Context, brief bool, f func(*tx) error) error {
	w := &s.write
	if brief {
		w = &s.brief
	}
	t := &tx{ctx: ctx, s: s, w: w}
	err := w.begin(t)
	if err != nil {
		return err
	}
	err = s.dialect.begun(t, brief)
	if err == nil {
		err = f(t)
	}
	if err == nil {
		err = t.flush()
	}
	if err != nil {
		if e := t.Rollback(); e != nil && !errors.Is(e, sql.ErrTxDone) && ctx.Err() == nil {
			err = errors.Join(err, e)
		}
		if !s.isAnswer(err) {
			w.drop()
		}
		return err
	}
	if err := t.Commit(); err != nil {
		w.drop()
		return err
	}
	s.committed(t)
	return nil
}

// flush writes what is numbered in the order of commits, last: the counters' rows are held no longer than needed.
func (t *tx) flush() error {
	if err := t.writeEvents(); err != nil {
		return err
	}
	if err := t.writeAudits(); err != nil {
		return err
	}
	for _, n := range t.notes {
		if err := t.s.dialect.notify(t, n); err != nil {
			return err
		}
	}
	return nil
}

// committed tells this process's subscribers, where the database does not.
func (s *Store) committed(t *tx) {
	if s.pool == nil {
		for _, n := range t.notes {
			s.bus.publish(n)
		}
	}
}

// leave adds a Trail to the transaction.
func (t *tx) leave(by Trail) {
	t.events = append(t.events, by.Events...)
	if by.Audit != nil {
		t.audits = append(t.audits, *by.Audit)
	}
}

// publish tells subscribers when the transaction is committed.
func (t *tx) publish(topic Topic, key string) {
	t.notes = append(t.notes, Note{Topic: topic, Key: key})
}

// next takes n numbers from a counter and gives the first. The counter's row is locked until the transaction ends.
func (t *tx) next(counter string, n int) (int64, error) {
	var last int64
	err := t.one(`UPDATE counters SET value = value + $1 WHERE name = $2 RETURNING value`, []any{n, counter}, &last)
	return last - int64(n) + 1, err
}

// exec runs a statement and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	text := t.s.text(query)
	stmt, err := t.w.prepared(t.ctx, text)
	if err != nil {
		return 0, err
	}
	var r sql.Result
	if stmt != nil {
		r, err = stmt.ExecContext(t.ctx, t.s.args(args)...)
	} else {
		r, err = t.ExecContext(t.ctx, text, t.s.args(args)...)
	}
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// must runs a statement that changes a row, and is ErrNotFound where it changes none.
func (t *tx) must(query string, args ...any) error {
	n, err := t.exec(query, args...)
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
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

// one reads one row; sql.ErrNoRows where there is none.
func (t *tx) one(query string, args []any, into ...any) error {
	text := t.s.text(query)
	stmt, err := t.w.prepared(t.ctx, text)
	switch {
	case err != nil:
		return err
	case stmt != nil:
		return stmt.QueryRowContext(t.ctx, t.s.args(args)...).Scan(into...)
	}
	return t.QueryRowContext(t.ctx, text, t.s.args(args)...).Scan(into...)
}

// each hands each row of a query to scan.
func (t *tx) each(scan func(*sql.Rows) error, query string, args ...any) error {
	text := t.s.text(query)
	stmt, err := t.w.prepared(t.ctx, text)
	if err != nil {
		return err
	}
	var r *sql.Rows
	if stmt != nil {
		r, err = stmt.QueryContext(t.ctx, t.s.args(args)...)
	} else {
		r, err = t.QueryContext(t.ctx, text, t.s.args(args)...)
	}
	return scanAll(r, err, scan)
}

// insert writes rows of equal length with few statements: `INSERT INTO` head (which names the columns), the rows, tail.
func (t *tx) insert(head, tail string, rows [][]any) (int64, error) {
	if len(rows) == 0 {
		return 0, nil
	}
	return t.s.dialect.insert(t, head, tail, rows)
}

// insertValues is insert with lists of VALUES.
func (t *tx) insertValues(head, tail string, rows [][]any) (int64, error) {
	var total int64
	for len(rows) > 0 {
		n := chunk(len(rows))
		var args []any
		for _, r := range rows[:n] {
			args = append(args, r...)
		}
		k, err := t.exec(t.s.valuesText(shape{head, tail, n, len(rows[0])}), args...)
		if err != nil {
			return total, err
		}
		total += k
		rows = rows[n:]
	}
	return total, nil
}

// sortRows puts rows in the order of their first column, so that writers lock them in one order.
func sortRows(rows [][]any) {
	slices.SortFunc(rows, func(a, b []any) int { return strings.Compare(a[0].(string), b[0].(string)) })
}

// chunk gives how many of n rows go into one statement: few different numbers, so that statements are prepared once.
func chunk(n int) int {
	for _, c := range []int{64, 16, 4} {
		if n >= c {
			return c
		}
	}
	return 1
}

// shape is a statement that inserts rows.
type shape struct {
	head, tail    string
	rows, columns int
}

func (s *Store) valuesText(v shape) string {
	if q, ok := s.texts.Load(v); ok {
		return q.(string)
	}
	var b strings.Builder
	b.WriteString("INSERT INTO " + v.head + " VALUES ")
	for i := range v.rows * v.columns {
		switch {
		case i == 0:
			b.WriteByte('(')
		case i%v.columns == 0:
			b.WriteString("), (")
		default:
			b.WriteString(", ")
		}
		b.WriteString(s.dialect.place(i + 1))
	}
	b.WriteString(") " + v.tail)
	s.texts.Store(v, b.String())
	return b.String()
}

// text gives a statement as the database reads it.
func (s *Store) text(query string) string {
	if q, ok := s.texts.Load(query); ok {
		return q.(string)
	}
	q := s.dialect.text(query)
	s.texts.Store(query, q)
	return q
}

func (s *Store) args(args []any) []any {
	for i, a := range args {
		args[i] = s.dialect.arg(a)
	}
	return args
}

func scanAll(r *sql.Rows, err error, scan func(*sql.Rows) error) error {
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	for r.Next() {
		if err := scan(r); err != nil {
			return err
		}
	}
	return r.Err()
}

// timed begins to time a use of the database, until the call of what it gives.
func (s *Store) timed(write bool) func() {
	began := time.Now()
	return func() { s.observe(write, time.Since(began)) }
}

// each hands each row of a query to scan, within limit.
func (s *Store) each(ctx context.Context, limit time.Duration, scan func(*sql.Rows) error, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer s.timed(false)()
	r, err := s.read.QueryContext(ctx, s.text(query), s.args(args)...)
	return s.wrap(scanAll(r, err, scan))
}

// one reads one row, within limit; ErrNotFound where there is none.
func (s *Store) one(ctx context.Context, limit time.Duration, query string, args []any, into ...any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer s.timed(false)()
	return s.wrap(s.read.QueryRowContext(ctx, s.text(query), s.args(args)...).Scan(into...))
}

// listOf runs a query of an ordinary answer's size and gives what scan makes of each row.
func listOf[T any](ctx context.Context, s *Store, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	var all []T
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		v, err := scan(r)
		all = append(all, v)
		return err
	}, query, args...)
	return all, err
}
