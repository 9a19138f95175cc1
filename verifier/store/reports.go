package store

import (
	"bytes"
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

// reportAbout is a report with what it says of one machine.
type reportAbout struct {
	api.ReportInfo
	about
	evidence bool
}

// reportsAbout hands the reports about a machine to f, newest first, until f has enough. They are found by the hosts
// that the machine is or was on.
func (s *Store) reportsAbout(ctx context.Context, machine string, f func(reportAbout) bool) error {
	enough := errors.New("enough")
	err := s.each(ctx, bulkTimeout, func(r *sql.Rows) error {
		var v reportAbout
		var created, scheme int64
		var kept int
		var all []about
		var b []byte
		if err := r.Scan(&v.ID, &v.Host, &created, &scheme, &b, &kept); err != nil {
			return err
		}
		if !bytes.Contains(b, []byte(`"`+machine+`"`)) {
			return nil
		}
		if err := json.Unmarshal(b, &all); err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(a about) bool { return a.Machine == machine })
		if i < 0 {
			return nil
		}
		v.about, v.evidence = all[i], kept == 1
		v.Time, v.ReportInfo.State, v.Scheme, v.Evidence = fromMillis(created), all[i].State, attest.Scheme(scheme), v.evidence
		if !f(v) {
			return enough
		}
		return nil
	}, `SELECT r.id, r.host, r.created, r.scheme, r.about, CASE WHEN e.report IS NULL THEN 0 ELSE 1 END FROM reports r LEFT JOIN evidence e ON e.report = r.id
		WHERE r.host IN (SELECT host FROM results WHERE machine = $1 UNION SELECT host FROM vtpms WHERE uuid = $1 UNION SELECT host FROM events WHERE machine = $1)
		ORDER BY r.created DESC, r.id`, machine)
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// NewestEvidence gives the ID of the newest report whose Evidence is kept and holds the machine.
func (s *Store) NewestEvidence(ctx context.Context, machine string) (id string, err error) {
	err = s.reportsAbout(ctx, machine, func(r reportAbout) bool {
		if r.evidence && r.Boot != "" {
			id = r.ID
		}
		return id == ""
	})
	if err == nil && id == "" {
		err = ErrNotFound
	}
	return id, err
}

// Reports lists the reports on record that say something about a machine, newest first.
func (s *Store) Reports(ctx context.Context, machine string, p api.Page) (*api.List[api.ReportInfo], error) {
	l := &api.List[api.ReportInfo]{Items: []api.ReportInfo{}}
	at, id, err := cursorOf(p.Cursor)
	if err != nil {
		return nil, err
	}
	n := pageSize(p)
	err = s.reportsAbout(ctx, machine, func(r reportAbout) bool {
		if r.about.State == "" {
			return true
		}
		l.Total++
		created := r.Time.UnixMilli()
		if created > at || created == at && r.ID <= id {
			return true
		}
		if len(l.Items) < n {
			l.Items = append(l.Items, r.ReportInfo)
		} else if l.Next == "" {
			last := l.Items[n-1]
			l.Next = cursor(last.Time.UnixMilli(), last.ID)
		}
		return true
	})
	return l, err
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
