package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Outcome is everything that one challenge led to.
type Outcome struct {
	Host     string
	Report   *api.Report
	Created  time.Time
	Evidence *attest.Evidence // as it was received; nil if none came
	Advances []Advance        // of machines whose measurements were proven further
	VTPMs    []VTPM           // that were linked
	Left     []attest.UUID    // VMs that the host proved not to run
}

// Advance is a machine's new record.
type Advance struct {
	Machine                          // Revision is that of the record it builds on
	Log        *attest.LogSegment    // holds the entries up to Entries from the record before, at least
	Supersedes func(now []byte) bool // whether this state is later than another that was stored meanwhile
}

// Commit stores an Outcome: all of it or, with an error, nothing. ErrNotFound means that the
// host was deleted meanwhile; ErrConflict that a vTPM was linked elsewhere meanwhile.
func (s *Store) Commit(ctx context.Context, o *Outcome) error {
	report, err := json.Marshal(o.Report)
	if err != nil {
		return err
	}
	var evidence []byte
	if o.Evidence != nil {
		if evidence, err = o.Evidence.Encode(); err != nil {
			return err
		}
	}
	return s.tx(ctx, bulkTimeout, func(t *tx) error {
		if err := t.hostExists(o.Host); err != nil {
			return err
		}
		if err := t.putIdentities(o); err != nil {
			return err
		}
		for _, a := range o.Advances {
			if _, err := t.putMachine(a); err != nil {
				return err
			}
		}
		if err := t.putReport(o, report, evidence); err != nil {
			return err
		}
		return t.putResults(o)
	})
}

func (t *tx) hostExists(id string) error {
	var n int
	return t.QueryRowContext(t.ctx, `SELECT 1 FROM hosts WHERE id = $1`, id).Scan(&n)
}

func (t *tx) putIdentities(o *Outcome) error {
	for _, v := range o.VTPMs {
		if err := t.putVTPM(v); err != nil {
			return err
		}
	}
	for _, vm := range o.Left {
		if _, err := t.exec(`UPDATE vtpms SET host = '' WHERE host = $1 AND uuid = $2`, o.Host, vm.String()); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) putReport(o *Outcome, report, evidence []byte) error {
	_, err := t.exec(`INSERT INTO reports (id, host, created, report, evidence) VALUES ($1, $2, $3, $4, $5)`,
		o.Report.ID, o.Host, millis(o.Created), report, evidence)
	if err != nil || o.Evidence == nil {
		return err
	}
	if err := t.putReportMachine(o.Report.ID, o.Host, o.Evidence.Host.IMA.BootID); err != nil {
		return err
	}
	for i := range o.Evidence.VMs {
		vm := &o.Evidence.VMs[i]
		if err := t.putReportMachine(o.Report.ID, vm.UUID.String(), vm.IMA.BootID); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) putReportMachine(report, machine, boot string) error {
	_, err := t.exec(`INSERT INTO report_machines (report, machine, boot_id) VALUES ($1, $2, $3)`, report, machine, boot)
	return err
}

func (t *tx) putResults(o *Outcome) error {
	for _, r := range append([]appraise.Result{o.Report.Host}, o.Report.VMs...) {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		machine := o.Host
		if r.UUID != (attest.UUID{}) {
			machine = r.UUID.String()
		}
		_, err = t.exec(`INSERT INTO results (machine, host, report, created, result) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (machine, host) DO UPDATE SET report = excluded.report, created = excluded.created, result = excluded.result
			WHERE results.created <= excluded.created`, machine, o.Host, o.Report.ID, millis(o.Created), b)
		if err != nil {
			return err
		}
	}
	return nil
}

// Results lists the newest result of each machine on each host, hosts among them.
func (s *Store) Results(ctx context.Context) ([]appraise.Result, error) {
	return listOf(ctx, s.read, func(r *sql.Rows) (v appraise.Result, err error) {
		var b []byte
		if err := r.Scan(&b); err != nil {
			return v, err
		}
		err = json.Unmarshal(b, &v)
		return v, err
	}, `SELECT result FROM results ORDER BY machine, host`)
}

// Report gives a report by its ID.
func (s *Store) Report(ctx context.Context, id string) (*api.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var b []byte
	if err := s.read.QueryRowContext(ctx, `SELECT report FROM reports WHERE id = $1`, id).Scan(&b); err != nil {
		return nil, wrap(err)
	}
	var r api.Report
	return &r, json.Unmarshal(b, &r)
}

// Evidence gives a report's Evidence as it was received. The error is ErrNotFound where none came
// or it is not kept any more.
func (s *Store) Evidence(ctx context.Context, report string) (*attest.Evidence, error) {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	var b []byte
	err := s.read.QueryRowContext(ctx, `SELECT evidence FROM reports WHERE id = $1 AND evidence IS NOT NULL`, report).Scan(&b)
	if err != nil {
		return nil, wrap(err)
	}
	return attest.DecodeEvidence(b)
}

// NewestEvidence gives the ID of the newest report whose Evidence is kept and holds the machine.
func (s *Store) NewestEvidence(ctx context.Context, machine string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var id string
	err := s.read.QueryRowContext(ctx, `SELECT r.id FROM reports r JOIN report_machines m ON m.report = r.id
		WHERE m.machine = $1 AND r.evidence IS NOT NULL ORDER BY r.created DESC, r.id LIMIT 1`, machine).Scan(&id)
	return id, wrap(err)
}

// Prune drops what Retention does not keep: old reports and evidence, logs of boots that nothing
// on record is about, challenges long ended.
func (s *Store) Prune(ctx context.Context, keep Retention, now time.Time) error {
	return s.tx(ctx, bulkTimeout, func(t *tx) error {
		const newest = ` AND id NOT IN (SELECT report FROM results)`
		const rank = `(SELECT COUNT(*) FROM reports n WHERE n.host = reports.host AND n.created > reports.created)`
		for _, q := range []struct {
			query string
			arg   any
		}{
			{`DELETE FROM reports WHERE created < $1` + newest, millis(now.Add(-keep.Age))},
			{`DELETE FROM reports WHERE ` + rank + ` >= $1` + newest, keep.Reports},
			{`UPDATE reports SET evidence = NULL WHERE evidence IS NOT NULL AND ` + rank + ` >= $1` + newest, keep.Evidence},
			{`DELETE FROM challenges WHERE not_after < $1`, millis(now.Add(-keepTaken))},
		} {
			if _, err := t.exec(q.query, q.arg); err != nil {
				return err
			}
		}
		_, err := t.exec(`DELETE FROM ima WHERE NOT EXISTS (SELECT 1 FROM machines m WHERE m.machine = ima.machine AND m.boot_id = ima.boot_id)
			AND NOT EXISTS (SELECT 1 FROM report_machines r WHERE r.machine = ima.machine AND r.boot_id = ima.boot_id)`)
		return err
	})
}
