package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
)

// Machine is how far a machine's measurements were replayed.
type Machine struct {
	ID       string      // a VM's UUID or a host's ID
	EKName   attest.Name // of the TPM that proved it
	BootID   string
	Entries  uint64 // of the IMA log
	Revision int64  // of this record; 0 for one that is not there
	State    []byte // the appraiser's own, JSON
}

// VTPM is a virtual TPM that an approved host linked.
type VTPM struct {
	EKName attest.Name
	UUID   attest.UUID
	AKName attest.Name // proven by activation; nil while only HYPA was used
	Host   string      // where it ran last; "" if that host said that it left
	First  time.Time   // zero for one that is not on record yet
	Last   time.Time
}

// Machine gives a machine's record, or a zero one with the ID only.
func (s *Store) Machine(ctx context.Context, id string) (Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	m := Machine{ID: id}
	var ek string
	err := s.read.QueryRowContext(ctx, `SELECT ek_name, boot_id, entries, revision, state FROM machines WHERE machine = $1`, id).
		Scan(&ek, &m.BootID, &m.Entries, &m.Revision, &m.State)
	if errors.Is(err, sql.ErrNoRows) {
		return m, nil
	}
	if err == nil {
		m.EKName, err = hex.DecodeString(ek)
	}
	return m, wrap(err)
}

// VTPMs gives the vTPMs on record whose EK is ek or which belong to VM vm: none, one, or two
// that contradict each other.
func (s *Store) VTPMs(ctx context.Context, vm attest.UUID, ek attest.Name) ([]VTPM, error) {
	return s.vtpms(ctx, `WHERE uuid = $1 OR ek_name = $2 ORDER BY uuid`, vm.String(), ek.String())
}

func (s *Store) vtpms(ctx context.Context, where string, args ...any) ([]VTPM, error) {
	return listOf(ctx, s.read, func(r *sql.Rows) (VTPM, error) {
		var v VTPM
		var ek, uuid, ak string
		var first, last int64
		if err := r.Scan(&ek, &uuid, &ak, &v.Host, &first, &last); err != nil {
			return v, err
		}
		v.First, v.Last = fromMillis(first), fromMillis(last)
		var err1, err2, err3 error
		v.EKName, err1 = hex.DecodeString(ek)
		v.UUID, err2 = attest.ParseUUID(uuid)
		v.AKName, err3 = hex.DecodeString(ak)
		return v, errors.Join(err1, err2, err3)
	}, `SELECT ek_name, uuid, ak_name, host, first_seen, last_seen FROM vtpms `+where, args...)
}

// DeleteVM forgets a VM: its vTPM, replay state, log and results. The next attestation
// enrols whatever vTPM it has then.
func (s *Store) DeleteVM(ctx context.Context, vm attest.UUID) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		var n int64
		for _, q := range []string{`DELETE FROM vtpms WHERE uuid = $1`, `DELETE FROM machines WHERE machine = $1`,
			`DELETE FROM ima WHERE machine = $1`, `DELETE FROM results WHERE machine = $1`} {
			k, err := t.exec(q, vm.String())
			if err != nil {
				return err
			}
			n += k
		}
		if n == 0 {
			return ErrNotFound
		}
		return nil
	})
}

// putVTPM records that a vTPM was linked. A vTPM that is another VM's, a VM that has
// another vTPM, a vTPM whose last host has not said that it left, and one that an operator made
// the Verifier forget meanwhile, are ErrConflict.
func (t *tx) putVTPM(v VTPM) error {
	if v.First.IsZero() {
		_, err := t.exec(`INSERT INTO vtpms (ek_name, uuid, ak_name, host, first_seen, last_seen) VALUES ($1, $2, $3, $4, $5, $5)`,
			v.EKName.String(), v.UUID.String(), v.AKName.String(), v.Host, millis(v.Last))
		return err
	}
	n, err := t.exec(`UPDATE vtpms SET host = $1, last_seen = $2, ak_name = CASE WHEN $3 <> '' THEN $3 ELSE ak_name END
		WHERE ek_name = $4 AND uuid = $5 AND (host = $1 OR host = '')`,
		v.Host, millis(v.Last), v.AKName.String(), v.EKName.String(), v.UUID.String())
	if err == nil && n == 0 {
		return ErrConflict
	}
	return err
}

// putMachine advances a machine's record, unless another answer advanced it since it was
// read and supersedes says that this one is not later. It reports whether it did.
func (t *tx) putMachine(a Advance) (bool, error) {
	var revision int64
	var state []byte
	err := t.QueryRowContext(t.ctx, `SELECT revision, state FROM machines WHERE machine = $1`, a.ID).Scan(&revision, &state)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	if revision != a.Revision && (a.Supersedes == nil || !a.Supersedes(state)) {
		return false, nil
	}
	_, err = t.exec(`INSERT INTO machines (machine, ek_name, boot_id, entries, revision, state) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (machine) DO UPDATE SET ek_name = excluded.ek_name, boot_id = excluded.boot_id,
			entries = excluded.entries, revision = excluded.revision, state = excluded.state`,
		a.ID, a.EKName.String(), a.BootID, int64(a.Entries), max(revision, a.Revision)+1, blob(a.State))
	if err != nil {
		return false, err
	}
	return true, t.putLog(a)
}

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
	err := t.QueryRowContext(t.ctx, `SELECT COALESCE(MAX(first + entries), 0) FROM ima WHERE machine = $1 AND boot_id = $2`, a.ID, a.BootID).Scan(&have)
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
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	l := &attest.LogSegment{BootID: bootID}
	err := rows(ctx, s.read, func(r *sql.Rows) error {
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
