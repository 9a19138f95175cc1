package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"virt-attest/verifier/api"
)

// PutEvents records things that happened.
func (s *Store) PutEvents(ctx context.Context, events []api.Event) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.events = append(t.events, events...)
		return nil
	})
}

// writeEvents numbers and writes the transaction's events.
func (t *tx) writeEvents() error {
	if len(t.events) == 0 {
		return nil
	}
	id, err := t.next("event", len(t.events))
	if err != nil {
		return err
	}
	rows := make([][]any, len(t.events))
	for i := range t.events {
		e := &t.events[i]
		e.ID = id + int64(i)
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		rows[i] = []any{e.ID, millis(e.Time), e.Kind, e.Machine, e.Host, e.Tenant, b}
	}
	t.publish(TopicEvent, strconv.FormatInt(t.events[len(t.events)-1].ID, 10))
	_, err = t.insert(`events (id, at, kind, machine, host, tenant, data)`, ``, rows)
	return err
}

// Events gives what a filter selects, of one tenant's VMs ("" all).
func (s *Store) Events(ctx context.Context, f api.EventFilter, tenant string) ([]api.Event, error) {
	var w where
	order := `id`
	switch {
	case !f.Newest:
		w.and(`id > `, f.After)
	case f.After > 0:
		w.and(`id < `, f.After)
	}
	if f.Newest {
		order = `id DESC`
	}
	if f.Machine != "" {
		w.and(`machine = `, f.Machine)
	}
	if tenant != "" {
		w.and(`tenant = `, tenant)
	}
	if len(f.Kinds) > 0 {
		w.any(`kind`, f.Kinds)
	}
	n := f.Limit
	if n <= 0 || n > api.MaxEvents {
		n = api.MaxEvents
	}
	return listOf(ctx, s, func(r *sql.Rows) (e api.Event, err error) {
		var b []byte
		if err := r.Scan(&b); err != nil {
			return e, err
		}
		return e, json.Unmarshal(b, &e)
	}, `SELECT data FROM events`+w.text()+` ORDER BY `+order+` LIMIT `+w.arg(n), w.args...)
}

// LastEvent gives the newest event's ID, 0 where there is none yet.
func (s *Store) LastEvent(ctx context.Context) (id int64, err error) {
	err = s.one(ctx, opTimeout, `SELECT value FROM counters WHERE name = 'event'`, nil, &id)
	return id, err
}

// CountEvents counts the events after one that are of certain kinds (none: all) and of one tenant's ("" all), up to most.
func (s *Store) CountEvents(ctx context.Context, after int64, kinds []string, tenant string, most int) (n int, err error) {
	var w where
	w.and(`id > `, after)
	if len(kinds) > 0 {
		w.any(`kind`, kinds)
	}
	if tenant != "" {
		w.and(`tenant = `, tenant)
	}
	err = s.one(ctx, opTimeout, `SELECT COUNT(*) FROM (SELECT 1 FROM events`+w.text()+` LIMIT `+w.arg(most)+`) AS counted`, w.args, &n)
	return n, err
}

// where collects the conditions of a query with their arguments.
type where struct {
	conditions []string
	args       []any
}

// arg adds an argument and gives its place.
func (w *where) arg(v any) string {
	w.args = append(w.args, v)
	return `$` + strconv.Itoa(len(w.args))
}

func (w *where) and(condition string, v any) { w.add(condition + w.arg(v)) }

func (w *where) any(column string, values []string) {
	w.add(column + ` = ANY(` + w.arg(list(values)) + `)`)
}

func (w *where) add(condition string) { w.conditions = append(w.conditions, condition) }

func (w *where) text() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return ` WHERE ` + w.all()
}

func (w *where) all() string { return strings.Join(w.conditions, ` AND `) }

// errNoAudit says that Config.Chain was not given.
var errNoAudit = errors.New("store: there is no audit log to write to")

// PutAudit appends an entry to the audit log.
func (s *Store) PutAudit(ctx context.Context, e api.AuditEntry) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.audits = append(t.audits, e)
		return nil
	})
}

// writeAudits chains and writes the transaction's audit entries. The counter's row makes writers wait for each other.
func (t *tx) writeAudits() error {
	if len(t.audits) == 0 {
		return nil
	}
	if t.s.chain == nil {
		return errNoAudit
	}
	seq, err := t.next("audit", len(t.audits))
	if err != nil {
		return err
	}
	prev, err := latestAudit(func(query string, into ...any) error { return t.one(query, nil, into...) })
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	rows := make([][]any, len(t.audits))
	for i, e := range t.audits {
		e.Seq, e.Time = seq+int64(i), e.Time.UTC().Truncate(time.Millisecond)
		prev = t.s.chain(prev, e)
		b, err := json.Marshal(prev)
		if err != nil {
			return err
		}
		rows[i] = []any{prev.Seq, millis(prev.Time), prev.Hash, b}
	}
	_, err = t.insert(`audit (seq, at, hash, data)`, ``, rows)
	return err
}

func latestAudit(one func(query string, into ...any) error) (e api.AuditEntry, err error) {
	var b []byte
	if err := one(`SELECT data FROM audit ORDER BY seq DESC LIMIT 1`, &b); err != nil {
		return e, err
	}
	return e, json.Unmarshal(b, &e)
}

// LatestAudit gives the audit log's last entry, a zero one where it is empty.
func (s *Store) LatestAudit(ctx context.Context) (api.AuditEntry, error) {
	e, err := latestAudit(func(query string, into ...any) error { return s.one(ctx, opTimeout, query, nil, into...) })
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return e, err
}

// Audit gives up to n entries before one (0: from the end), newest first.
func (s *Store) Audit(ctx context.Context, before int64, n int) ([]api.AuditEntry, error) {
	return listOf(ctx, s, scanAudit, `SELECT data FROM audit WHERE seq < $1 OR $1 = 0 ORDER BY seq DESC LIMIT $2`, before, n)
}

func scanAudit(r *sql.Rows) (e api.AuditEntry, err error) {
	var b []byte
	if err := r.Scan(&b); err != nil {
		return e, err
	}
	return e, json.Unmarshal(b, &e)
}

// EachAudit hands every entry after one to f, oldest first, as they are at their moment.
func (s *Store) EachAudit(ctx context.Context, after int64, f func(api.AuditEntry) error) error {
	for {
		page, err := listOf(ctx, s, scanAudit, `SELECT data FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2`, after, api.MaxEvents)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, e := range page {
			if err := f(e); err != nil {
				return err
			}
		}
		after = page[len(page)-1].Seq
	}
}
