package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Outcome is everything that one challenge led to.
type Outcome struct {
	Host       string
	Report     *api.Report
	Created    time.Time
	Evidence   *attest.Evidence // as it was received; nil if none came
	Completed  bool             // it was not received whole: keep Evidence in the place of what Take has stored
	Advances   []Advance        // of machines whose measurements were proven further
	VTPMs      []VTPM           // that were linked
	Left       []attest.UUID    // VMs that the host proved not to run
	Generation int64            // Subjects gave it with what was appraised by; 0: by nothing
	Held       []attest.UUID    // VMs of the report whose verdict on record stays as it is
	Alerts     []api.Alert      // that the machines' verdicts call for now: code, machine, text, hint. Others of theirs are closed
}

// Advance is a machine's new record.
type Advance struct {
	Machine                          // Revision is that of the record it builds on
	Log        *attest.LogSegment    // holds the entries up to Entries from the record before, at least
	Boot       *BootLog              // that was found in order; nil: what is on record stays
	Supersedes func(now []byte) bool // whether this state is later than another that was stored meanwhile
}

// Commit stores an Outcome: all of it or, with an error, nothing. ErrDone means that the challenge has its
// report, or is void; ErrNotFound that the host was deleted meanwhile; ErrConflict that a vTPM was linked elsewhere
// meanwhile. A result that is older than the one on record changes nothing.
func (s *Store) Commit(ctx context.Context, o *Outcome) error {
	report, err := json.Marshal(o.Report)
	if err != nil {
		return err
	}
	rows, err := resultRows(o.Host, append(slices.Clip(o.Report.VMs), o.Report.Host))
	if err != nil {
		return err
	}
	about, err := json.Marshal(o.about(rows))
	if err != nil {
		return err
	}
	return s.tx(ctx, bulkTimeout, func(t *tx) error {
		if err := t.lockHost(o.Host); err != nil {
			return err
		}
		if err := t.finish(o); err != nil {
			return err
		}
		if err := t.putIdentities(o); err != nil {
			return err
		}
		if err := t.putMachines(o.Advances); err != nil {
			return err
		}
		if err := t.putReport(o, report, about); err != nil {
			return err
		}
		t.publish(TopicReport, o.Report.ID)
		judged := slices.DeleteFunc(rows, func(r *result) bool {
			return slices.ContainsFunc(o.Held, func(vm attest.UUID) bool { return vm.String() == r.machine })
		})
		return t.putResults(&verdicts{host: o.Host, created: millis(o.Created), generation: o.Generation, rows: judged, alerts: o.Alerts})
	})
}

// lockHost makes writers of one host's records wait for each other.
func (t *tx) lockHost(id string) error {
	var n int
	return t.one(`SELECT 1 FROM hosts WHERE id = $1 FOR NO KEY UPDATE`, []any{id}, &n)
}

// finish ends the challenge. What only its appraisal needed goes.
func (t *tx) finish(o *Outcome) error {
	n, err := t.exec(`UPDATE challenges SET done = $1, known = $2, secrets = $2 WHERE nonce = $3 AND done = 0`, max(millis(o.Created), 1), []byte{}, o.Report.ID)
	if err != nil || n > 0 {
		return err
	}
	var done int64
	err = t.one(`SELECT done FROM challenges WHERE nonce = $1`, []any{o.Report.ID}, &done)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil // the report's own key decides
	case err != nil:
		return err
	}
	return ErrDone
}

func (t *tx) putIdentities(o *Outcome) error {
	if err := t.putVTPMs(o.VTPMs); err != nil {
		return err
	}
	if len(o.Left) == 0 {
		return nil
	}
	left := make(list, len(o.Left))
	for i, vm := range o.Left {
		left[i] = vm.String()
	}
	_, err := t.exec(`UPDATE vtpms SET host = '' WHERE host = $1 AND uuid = ANY($2)`, o.Host, left)
	return err
}

// putVTPMs records that vTPMs were linked. A vTPM that is another VM's, a VM that has
// another vTPM, a vTPM whose last host has not said that it left, and one that an operator made
// the Verifier forget meanwhile, are ErrConflict.
func (t *tx) putVTPMs(all []VTPM) error {
	type place struct{ uuid, ak, host string }
	known := make(map[string]place)
	if err := t.each(func(r *sql.Rows) error {
		var ek string
		var p place
		err := r.Scan(&ek, &p.uuid, &p.ak, &p.host)
		known[ek] = p
		return err
	}, `SELECT ek_name, uuid, ak_name, host FROM vtpms WHERE ek_name = ANY($1) ORDER BY ek_name FOR UPDATE`, vtpmNames(all)); err != nil {
		return err
	}
	var fresh [][]any
	same := make(map[int64]list) // by last_seen: nothing else is new
	for _, v := range all {
		ek, ak, last := v.EKName.String(), v.AKName.String(), millis(v.Last)
		was, ok := known[ek]
		switch {
		case v.First.IsZero():
			fresh = append(fresh, []any{ek, v.UUID.String(), ak, v.Host, last, last})
		case !ok || was.uuid != v.UUID.String() || was.host != v.Host && was.host != "":
			return ErrConflict
		case was.host == v.Host && (ak == "" || ak == was.ak):
			same[last] = append(same[last], ek)
		default:
			if err := t.must(`UPDATE vtpms SET host = $1, last_seen = $2, ak_name = CASE WHEN $3 <> '' THEN $3 ELSE ak_name END WHERE ek_name = $4`,
				v.Host, last, ak, ek); err != nil {
				return err
			}
		}
	}
	for last, names := range same {
		if _, err := t.exec(`UPDATE vtpms SET last_seen = $1 WHERE ek_name = ANY($2)`, last, names); err != nil {
			return err
		}
	}
	_, err := t.insert(`vtpms (ek_name, uuid, ak_name, host, first_seen, last_seen)`, ``, fresh)
	return err
}

func vtpmNames(all []VTPM) list {
	names := make(list, len(all))
	for i, v := range all {
		names[i] = v.EKName.String()
	}
	return names
}

// putMachines advances machines' records, but for those that another answer advanced since they were
// read and whose Supersedes says that this one is not later.
func (t *tx) putMachines(all []Advance) error {
	if len(all) == 0 {
		return nil
	}
	ids := make(list, len(all))
	for i, a := range all {
		ids[i] = a.ID
	}
	now := make(map[string]int64)
	err := t.each(func(r *sql.Rows) error {
		var id string
		var revision int64
		err := r.Scan(&id, &revision)
		now[id] = revision
		return err
	}, `SELECT machine, revision FROM machines WHERE machine = ANY($1) ORDER BY machine FOR UPDATE`, ids)
	if err != nil {
		return err
	}
	var rows [][]any
	var logs []Advance
	for _, a := range all {
		if now[a.ID] != a.Revision {
			if later, err := t.supersedes(a); err != nil || !later {
				if err != nil {
					return err
				}
				continue
			}
		}
		rows = append(rows, []any{a.ID, a.EKName.String(), a.BootID, int64(a.Entries), max(now[a.ID], a.Revision) + 1, blob(a.State)})
		logs = append(logs, a)
	}
	sortRows(rows)
	n, err := t.insert(`machines (machine, ek_name, boot_id, entries, revision, state)`, `ON CONFLICT (machine) DO UPDATE SET ek_name = excluded.ek_name,
		boot_id = excluded.boot_id, entries = excluded.entries, revision = excluded.revision, state = excluded.state WHERE machines.revision < excluded.revision`, rows)
	if err != nil {
		return err
	}
	if n != int64(len(rows)) { // another answer put it on record this moment
		return ErrConflict
	}
	if err := t.putLogs(logs); err != nil {
		return err
	}
	return t.putBootLogs(logs)
}

func (t *tx) supersedes(a Advance) (bool, error) {
	var state []byte
	err := t.one(`SELECT state FROM machines WHERE machine = $1`, []any{a.ID}, &state)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	return a.Supersedes != nil && a.Supersedes(state), nil
}

// about is what a report says of a machine, as it stands in reports.about.
type about struct {
	Machine string         `json:"m"`
	Boot    string         `json:"b,omitempty"` // that its evidence is about; "" where none came
	State   appraise.State `json:"s,omitempty"` // "" where nothing was judged
	Shown   bool           `json:"e,omitempty"` // its evidence has PCR values, with a log or without
}

func (o *Outcome) about(rows []*result) []about {
	came := make(map[string]about)
	if ev := o.Evidence; ev != nil {
		came[o.Host] = about{Machine: o.Host, Boot: ev.Host.IMA.BootID, Shown: len(ev.Host.PCRs) > 0}
		for i := range ev.VMs {
			id := ev.VMs[i].UUID.String()
			came[id] = about{Machine: id, Boot: ev.VMs[i].IMA.BootID, Shown: len(ev.VMs[i].PCRs) > 0}
		}
	}
	all := make([]about, 0, len(rows))
	for _, r := range rows {
		a := came[r.machine]
		a.Machine, a.State = r.machine, appraise.State(r.state)
		all = append(all, a)
		delete(came, r.machine)
	}
	for _, a := range came { // the host speaks of it, and nothing was judged
		all = append(all, a)
	}
	return all
}

func (t *tx) putReport(o *Outcome, report, about []byte) error {
	n, err := t.exec(`INSERT INTO reports (id, host, created, scheme, report, about) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING`,
		o.Report.ID, o.Host, millis(o.Created), int64(o.Report.Scheme), report, about)
	switch {
	case err != nil:
		return err
	case n == 0:
		return ErrDone
	case o.Evidence == nil:
		return nil
	}
	return t.keepEvidence(o)
}

// keepEvidence stores evidence that Take has not stored, or not whole.
func (t *tx) keepEvidence(o *Outcome) error {
	var n int
	err := t.one(`SELECT 1 FROM evidence WHERE report = $1`, []any{o.Report.ID}, &n)
	if there := err == nil; there && !o.Completed || err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	b, encErr := o.Evidence.Encode()
	if encErr != nil {
		return encErr
	}
	if err == nil {
		_, err = t.exec(`UPDATE evidence SET data = $2 WHERE report = $1`, o.Report.ID, b)
		return err
	}
	_, err = t.exec(`INSERT INTO evidence (report, received, data) VALUES ($1, $2, $3)`, o.Report.ID, millis(o.Created), b)
	return err
}
