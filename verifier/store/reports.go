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
}

// reportsAbout hands the reports about a machine to f, newest first, until f has enough. They are found by the hosts
// that the machine is or was on.
func (s *Store) reportsAbout(ctx context.Context, machine string, f func(reportAbout) bool) error {
	all, err := listOf(ctx, s, func(r *sql.Rows) (v api.ReportInfo, err error) {
		var created, scheme int64
		var kept int
		err = r.Scan(&v.ID, &v.Host, &created, &scheme, &kept)
		v.Time, v.Scheme, v.Evidence = fromMillis(created), attest.Scheme(scheme), kept == 1
		return v, err
	}, `SELECT r.id, r.host, r.created, r.scheme, CASE WHEN e.report IS NULL THEN 0 ELSE 1 END FROM reports r LEFT JOIN evidence e ON e.report = r.id
		WHERE r.host IN (SELECT host FROM results WHERE machine = $1 UNION SELECT host FROM vtpms WHERE uuid = $1 UNION SELECT host FROM events WHERE machine = $1)
		ORDER BY r.created DESC, r.id`, machine)
	if err != nil {
		return err
	}
	for _, v := range all {
		a, ok, err := s.aboutIn(ctx, v.ID, machine)
		if err != nil {
			return err
		}
		if v.State = a.State; ok && !f(reportAbout{v, a}) {
			return nil
		}
	}
	return nil
}

// aboutIn gives what a report says of a machine, if anything.
func (s *Store) aboutIn(ctx context.Context, report, machine string) (a about, ok bool, err error) {
	var b []byte
	err = s.one(ctx, opTimeout, `SELECT about FROM reports WHERE id = $1`, []any{report}, &b)
	if errors.Is(err, ErrNotFound) { // was pruned this moment
		return a, false, nil
	}
	if err != nil || !bytes.Contains(b, []byte(`"`+machine+`"`)) {
		return a, false, err
	}
	var all []about
	if err := json.Unmarshal(b, &all); err != nil {
		return a, false, err
	}
	i := slices.IndexFunc(all, func(a about) bool { return a.Machine == machine })
	if i < 0 {
		return a, false, nil
	}
	return all[i], true, nil
}

// NewestEvidence gives the ID of the newest report whose Evidence is kept and shows something of the machine.
func (s *Store) NewestEvidence(ctx context.Context, machine string) (id string, err error) {
	err = s.reportsAbout(ctx, machine, func(r reportAbout) bool {
		if r.Evidence && (r.Shown || r.Boot != "") {
			id = r.ID
		}
		return id == ""
	})
	if err == nil && id == "" {
		err = ErrNotFound
	}
	return id, err
}

// NewestEvidences is NewestEvidence for many machines; those without are left out.
func (s *Store) NewestEvidences(ctx context.Context, machines []string) (map[string]string, error) {
	m := make(map[string]string, len(machines))
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error { // of most the newest report has some, and speaks of them
		var machine, report string
		err := r.Scan(&machine, &report)
		m[machine] = report
		return err
	}, `SELECT r.machine, r.report FROM results r JOIN evidence e ON e.report = r.report WHERE r.machine = ANY($1) AND r.reason <> 'vm-missing' ORDER BY r.machine, r.created`, list(machines))
	if err != nil {
		return nil, err
	}
	for _, id := range machines {
		if m[id] != "" {
			continue
		}
		report, err := s.NewestEvidence(ctx, id)
		switch {
		case err == nil:
			m[id] = report
		case !errors.Is(err, ErrNotFound):
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
