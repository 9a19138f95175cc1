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

// Report gives a report by its ID.
func (s *Store) Report(ctx context.Context, id string) (*api.Report, error) {
	var b []byte
	if err := s.one(ctx, opTimeout, `SELECT report FROM reports WHERE id = $1`, []any{id}, &b); err != nil {
		return nil, err
	}
	var r api.Report
	return &r, json.Unmarshal(b, &r)
}

// Evidence gives a report's Evidence as it was received. The error is ErrNotFound where none came
// or it is not kept any more.
func (s *Store) Evidence(ctx context.Context, report string) (*attest.Evidence, error) {
	var b []byte
	if err := s.one(ctx, bulkTimeout, `SELECT data FROM evidence WHERE report = $1`, []any{report}, &b); err != nil {
		return nil, err
	}
	return attest.DecodeEvidence(b)
}

// NewestEvidence gives the ID of the newest report whose Evidence is kept and holds the machine.
func (s *Store) NewestEvidence(ctx context.Context, machine string) (id string, err error) {
	err = s.one(ctx, opTimeout, `SELECT m.report FROM report_machines m JOIN evidence e ON e.report = m.report
		WHERE m.machine = $1 AND m.boot_id <> '' ORDER BY m.created DESC, m.report LIMIT 1`, []any{machine}, &id)
	return id, err
}

// NewestEvidences is NewestEvidence for many machines; those without are left out.
func (s *Store) NewestEvidences(ctx context.Context, machines []string) (map[string]string, error) {
	m := make(map[string]string, len(machines))
	for _, id := range machines {
		report, err := s.NewestEvidence(ctx, id)
		switch {
		case err == nil:
			m[id] = report
		case err != ErrNotFound:
			return nil, err
		}
	}
	return m, nil
}

// Reports lists the reports on record that say something about a machine, newest first.
func (s *Store) Reports(ctx context.Context, machine string, p api.Page) (*api.List[api.ReportInfo], error) {
	l := &api.List[api.ReportInfo]{Items: []api.ReportInfo{}}
	at, id, err := cursorOf(p.Cursor)
	if err != nil {
		return nil, err
	}
	if err := s.one(ctx, opTimeout, `SELECT COUNT(*) FROM report_machines WHERE machine = $1 AND state <> ''`, []any{machine}, &l.Total); err != nil {
		return nil, err
	}
	n := pageSize(p)
	l.Items, err = listOf(ctx, s, scanReportInfo, `SELECT m.report, r.host, m.created, m.state, r.scheme, CASE WHEN e.report IS NULL THEN 0 ELSE 1 END
		FROM report_machines m JOIN reports r ON r.id = m.report LEFT JOIN evidence e ON e.report = m.report
		WHERE m.machine = $1 AND m.state <> '' AND (m.created < $2 OR m.created = $2 AND m.report > $3) ORDER BY m.created DESC, m.report LIMIT $4`, machine, at, id, n+1)
	if len(l.Items) > n {
		l.Items = l.Items[:n]
		last := l.Items[n-1]
		l.Next = cursor(last.Time.UnixMilli(), last.ID)
	}
	return l, err
}

func scanReportInfo(r *sql.Rows) (v api.ReportInfo, err error) {
	var created, scheme int64
	var state string
	var kept int
	err = r.Scan(&v.ID, &v.Host, &created, &state, &scheme, &kept)
	v.Time, v.State, v.Scheme, v.Evidence = fromMillis(created), appraise.State(state), attest.Scheme(scheme), kept == 1
	return v, err
}

// Record is a result on record with what it takes to say what it counts for now (evaluate.Current).
type Record struct {
	Result       appraise.Result
	Outdated     bool // what it was appraised by has changed since
	Tenant       string
	Generation   int64
	Since        time.Time       // the verdict is the same
	Attested     bool            // there is a report
	Host         appraise.Result // of the VM's host; the zero Result where there is none
	HostOutdated bool
	HostName     string
	State        appraise.State // now
}

// Results lists the newest result of each machine on each host, hosts among them, and of those that were
// attested only.
func (s *Store) Results(ctx context.Context) ([]appraise.Result, error) {
	return listOf(ctx, s, func(r *sql.Rows) (appraise.Result, error) {
		var row result
		if err := r.Scan(row.into()...); err != nil {
			return appraise.Result{}, err
		}
		return row.result()
	}, `SELECT `+resultColumns+` FROM results r WHERE r.report <> '' ORDER BY r.machine, r.host`)
}
