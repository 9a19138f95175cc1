package store

import (
	"context"
	"database/sql"
	"errors"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
)

// putLogs appends the proven entries of the advances' logs that are not on record yet, in three statements however
// many machines they are of. The machines' records are those of the advances already: the last piece of a log is looked up by them,
// one look in the index for each machine however long the log is. A log that begins at entry 0 takes the place of what was there for its boot.
func (t *tx) putLogs(all []Advance) error {
	key := func(a Advance) string { return a.ID + " " + a.BootID }
	var ids, whole, anew list
	for _, a := range all {
		if a.Log == nil || a.Log.Count == 0 {
			continue
		}
		ids = append(ids, a.ID)
		if a.Log.From == 0 {
			whole, anew = append(whole, a.ID), append(anew, key(a))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if len(whole) > 0 {
		if _, err := t.exec(`DELETE FROM ima WHERE machine = ANY($1) AND machine || ' ' || boot_id = ANY($2)`, whole, anew); err != nil {
			return err
		}
	}
	have := make(map[string]uint64)
	if err := t.each(func(r *sql.Rows) error {
		var id, boot string
		var end int64
		err := r.Scan(&id, &boot, &end)
		have[id+" "+boot] = uint64(end)
		return err
	}, logEnds, ids); err != nil {
		return err
	}
	var rows [][]any
	for _, a := range all {
		if a.Log == nil || a.Log.Count == 0 {
			continue
		}
		first := have[key(a)]
		if first < a.Log.From {
			return errGap
		}
		data, err := cut(a.Log, first, a.Entries)
		if err != nil {
			return err
		}
		if len(data) > 0 {
			rows = append(rows, []any{a.ID, a.BootID, int64(first), int64(a.Entries - first), int64(a.Log.TemplateHash), data})
		}
	}
	_, err := t.insert(`ima (machine, boot_id, first, entries, template_hash, data)`, ``, rows)
	return err
}

// logEnds gives how many entries of machines' logs are on record, of the boot that each machine's record is about.
const logEnds = `SELECT m.machine, m.boot_id, COALESCE((SELECT i.first + i.entries FROM ima i WHERE i.machine = m.machine AND i.boot_id = m.boot_id
	ORDER BY i.first DESC LIMIT 1), 0) FROM machines m WHERE m.machine = ANY($1)`

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

// piece is a row of ima without its data.
type piece struct{ first, entries, alg, size int64 }

// mergeLogs makes few pieces of many small ones: each increment is a row of its own, which costs a commit least. A log
// is in at most mergeAt small pieces after it.
func (s *Store) mergeLogs(ctx context.Context) error {
	type boot struct{ machine, id string }
	all, err := listOf(ctx, s, func(r *sql.Rows) (b boot, err error) {
		err = r.Scan(&b.machine, &b.id)
		return b, err
	}, `SELECT machine, boot_id FROM ima WHERE LENGTH(data) < $1 GROUP BY machine, boot_id HAVING COUNT(*) > $2`, mergeBelow, mergeAt)
	if err != nil {
		return err
	}
	for _, b := range all {
		if err := s.briefTx(ctx, func(t *tx) error { return t.mergeLog(b.machine, b.id) }); err != nil {
			return err
		}
	}
	return nil
}

// mergeLog merges the pieces of one boot's log. Who appends to it holds the machine's record, too.
func (t *tx) mergeLog(machine, boot string) error {
	var n int
	err := t.one(`SELECT 1 FROM machines WHERE machine = $1 FOR UPDATE`, []any{machine}, &n)
	if errors.Is(err, sql.ErrNoRows) { // it was forgotten, and its log goes
		return nil
	}
	if err != nil {
		return err
	}
	var all []piece
	if err := t.each(func(r *sql.Rows) error {
		var p piece
		err := r.Scan(&p.first, &p.entries, &p.alg, &p.size)
		all = append(all, p)
		return err
	}, `SELECT first, entries, template_hash, LENGTH(data) FROM ima WHERE machine = $1 AND boot_id = $2 ORDER BY first`, machine, boot); err != nil {
		return err
	}
	for len(all) > 0 {
		n := run(all)
		if err := t.mergePieces(machine, boot, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// run gives how many pieces, of those that follow each other from the first, make one of at most mergeBelow bytes; at least 1.
func run(all []piece) int {
	n, total := 1, all[0].size
	for ; n < len(all); n++ {
		last, p := all[n-1], all[n]
		if total += p.size; total > mergeBelow || p.first != last.first+last.entries || p.alg != last.alg {
			break
		}
	}
	return n
}

// mergePieces puts one piece in the place of several.
func (t *tx) mergePieces(machine, boot string, all []piece) error {
	if len(all) < 2 {
		return nil
	}
	first, last := all[0].first, all[len(all)-1]
	var data []byte
	if err := t.each(func(r *sql.Rows) error {
		var b []byte
		err := r.Scan(&b)
		data = append(data, b...)
		return err
	}, `SELECT data FROM ima WHERE machine = $1 AND boot_id = $2 AND first >= $3 AND first <= $4 ORDER BY first`, machine, boot, first, last.first); err != nil {
		return err
	}
	if _, err := t.exec(`DELETE FROM ima WHERE machine = $1 AND boot_id = $2 AND first > $3 AND first <= $4`, machine, boot, first, last.first); err != nil {
		return err
	}
	return t.must(`UPDATE ima SET entries = $1, data = $2 WHERE machine = $3 AND boot_id = $4 AND first = $5`, last.first+last.entries-first, data, machine, boot, first)
}
