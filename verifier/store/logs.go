package store

import (
	"context"
	"database/sql"
	"errors"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
)

// putLog appends the proven entries of a.Log that are not on record yet. A log that begins
// at entry 0 takes the place of what was there for its boot.
func (t *tx) putLog(a Advance) error {
	if a.Log == nil || a.Log.Count == 0 {
		return nil
	}
	if a.Log.From == 0 {
		if _, err := t.exec(`DELETE FROM ima WHERE machine = $1 AND boot_id = $2`, a.ID, a.BootID); err != nil {
			return err
		}
	}
	var have int64
	err := t.one(`SELECT COALESCE(MAX(first + entries), 0) FROM ima WHERE machine = $1 AND boot_id = $2`, []any{a.ID, a.BootID}, &have)
	if err != nil {
		return err
	}
	if uint64(have) < a.Log.From {
		return errGap
	}
	data, err := cut(a.Log, uint64(have), a.Entries)
	if err != nil || len(data) == 0 {
		return err
	}
	_, err = t.exec(`INSERT INTO ima (machine, boot_id, first, entries, template_hash, data) VALUES ($1, $2, $3, $4, $5, $6)`,
		a.ID, a.BootID, have, int64(a.Entries)-have, int64(a.Log.TemplateHash), data)
	return err
}

// errGap says that a log on record does not reach where the next part begins.
var errGap = errors.New("store: entries of an IMA log are missing")

// cut gives the bytes of the entries from index first up to end (not included).
func cut(l *attest.LogSegment, first, end uint64) ([]byte, error) {
	size := l.TemplateHash.Size()
	at, start, i := 0, 0, l.From
	for ; i < min(end, l.From+l.Count); i++ {
		if i == first {
			start = at
		}
		n, err := measurement.NextEntry(l.Data[at:], size)
		if err != nil {
			return nil, err
		}
		at += n
	}
	if i <= first {
		return nil, nil
	}
	if i < end {
		return nil, errGap
	}
	return l.Data[start:at], nil
}

// Log gives the entries of a machine's IMA log from the first up to end (not included), of the
// boot that bootID names; end 0 means all that are on record. The error is ErrNotFound where they are
// not kept any more.
func (s *Store) Log(ctx context.Context, machine, bootID string, end uint64) (*attest.LogSegment, error) {
	l := &attest.LogSegment{BootID: bootID}
	err := s.each(ctx, bulkTimeout, func(r *sql.Rows) error {
		part := attest.LogSegment{BootID: bootID}
		var alg int64
		if err := r.Scan(&part.From, &part.Count, &alg, &part.Data); err != nil {
			return err
		}
		part.TemplateHash = attest.Alg(alg)
		if end != 0 && part.From >= end {
			return nil
		}
		return add(l, &part, end)
	}, `SELECT first, entries, template_hash, data FROM ima WHERE machine = $1 AND boot_id = $2 ORDER BY first`, machine, bootID)
	if err == nil && l.Count < end {
		err = ErrNotFound
	}
	return l, err
}

// add appends part, up to entry end, to l.
func add(l, part *attest.LogSegment, end uint64) error {
	if part.From != l.Count {
		return errGap
	}
	last := part.From + part.Count
	data := part.Data
	if end != 0 && end < last {
		var err error
		if data, err = cut(part, part.From, end); err != nil {
			return err
		}
		last = end
	}
	l.TemplateHash, l.Count, l.Data = part.TemplateHash, last, append(l.Data, data...)
	return nil
}
