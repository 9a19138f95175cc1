package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// openAlert is an alert on record.
type openAlert struct {
	api.Alert
	verdict bool
}

const alertColumns = `id, code, machine, host, tenant, opened, last, times, acked, closed, verdict, data`

func scanAlert(r *sql.Rows) (a openAlert, err error) {
	var opened, last, acked, closed, verdict int64
	var b []byte
	var row api.Alert
	if err := r.Scan(&row.ID, &row.Code, &row.Machine, &row.Host, &row.Tenant, &opened, &last, &row.Count, &acked, &closed, &verdict, &b); err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a.Alert); err != nil {
		return a, err
	}
	a.ID, a.Code, a.Machine, a.Host, a.Tenant, a.Count = row.ID, row.Code, row.Machine, row.Host, row.Tenant, row.Count
	a.Opened, a.Last, a.Acked, a.Closed, a.verdict = fromMillis(opened), fromMillis(last), fromMillis(acked), fromMillis(closed), verdict != 0
	return a, nil
}

type alertKey struct{ machine, code string }

// openAlerts gives the open alerts of machines.
func (t *tx) openAlerts(machines list) (map[alertKey]openAlert, error) {
	m := make(map[alertKey]openAlert)
	err := t.each(func(r *sql.Rows) error {
		a, err := scanAlert(r)
		m[alertKey{a.Machine, a.Code}] = a
		return err
	}, `SELECT `+alertColumns+` FROM alerts WHERE closed = 0 AND machine = ANY($1)`, machines)
	return m, err
}

// reconcileAlerts opens the alerts that the written verdicts call for, counts those that are open, and closes those of
// the machines that no longer apply.
func (t *tx) reconcileAlerts(v *verdicts, written list, changed bool) error {
	if len(written) == 0 || len(v.alerts) == 0 && !changed {
		return nil
	}
	open, err := t.openAlerts(written)
	if err != nil {
		return err
	}
	about := make(map[string]*result, len(v.rows))
	for _, r := range v.rows {
		about[r.machine] = r
	}
	names := make(map[string]bool, len(written))
	for _, m := range written {
		names[m] = true
	}
	wanted := make(map[alertKey]bool, len(v.alerts))
	var fresh []api.Alert
	var again list
	for _, a := range v.alerts {
		key := alertKey{a.Machine, a.Code}
		if wanted[key] || !names[a.Machine] {
			continue
		}
		wanted[key] = true
		if old, ok := open[key]; ok {
			if err := t.retell(old.Alert, a); err != nil {
				return err
			}
			again = append(again, a.Machine+" "+a.Code)
			continue
		}
		r := about[a.Machine]
		a.Host, a.Tenant, a.Name, a.State = v.host, r.tenant, orText(a.Name, r.name), appraise.State(r.state)
		fresh = append(fresh, a)
	}
	if len(again) > 0 {
		if _, err := t.exec(`UPDATE alerts SET last = $1, times = times + 1 WHERE closed = 0 AND machine = ANY($2) AND machine || ' ' || code = ANY($3)`,
			v.created, written, again); err != nil {
			return err
		}
	}
	for key, a := range open {
		if a.verdict && !wanted[key] && !(v.restate && ofSeveral(key, v.host)) {
			if err := t.closeAlert(a.Alert, fromMillis(v.created)); err != nil {
				return err
			}
		}
	}
	return t.putAlerts(fresh, fromMillis(v.created), true)
}

// ofSeveral tells an alert about a host that leaves VMs out: only an answer of the host settles it.
func ofSeveral(k alertKey, host string) bool {
	return k.machine == host && k.code == string(appraise.CodeVMMissing)
}

// retell gives an open alert about several VMs its text of now: they may be others.
func (t *tx) retell(old, now api.Alert) error {
	if !ofSeveral(alertKey{old.Machine, old.Code}, old.Host) || old.Text == now.Text {
		return nil
	}
	old.Text = now.Text
	b, err := json.Marshal(old)
	if err != nil {
		return err
	}
	_, err = t.exec(`UPDATE alerts SET data = $1 WHERE id = $2`, b, old.ID)
	return err
}

func (t *tx) closeAlert(a api.Alert, now time.Time) error {
	t.events = append(t.events, alertEvent(a, now, "closed"))
	_, err := t.exec(`UPDATE alerts SET closed = $1 WHERE id = $2`, max(millis(now), 1), a.ID)
	return err
}

func alertEvent(a api.Alert, now time.Time, did string) api.Event {
	return api.Event{Time: now, Kind: api.EventAlert, Machine: a.Machine, Name: a.Name, Host: a.Host, Tenant: a.Tenant, State: a.State,
		Text: fmt.Sprintf("alert %s (%s): %s", did, a.Code, a.Text)}
}

func (t *tx) putAlerts(fresh []api.Alert, now time.Time, verdict bool) error {
	if len(fresh) == 0 {
		return nil
	}
	id, err := t.next("alert", len(fresh))
	if err != nil {
		return err
	}
	kind := 0
	if verdict {
		kind = 1
	}
	rows := make([][]any, len(fresh))
	for i, a := range fresh {
		a.ID, a.Opened, a.Last, a.Count, a.Acked, a.AckedBy, a.Closed = id+int64(i), now, now, 1, time.Time{}, "", time.Time{}
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		rows[i] = []any{a.ID, a.Code, a.Machine, a.Host, a.Tenant, millis(now), millis(now), 1, 0, 0, kind, b}
		t.events = append(t.events, alertEvent(a, now, "raised"))
	}
	_, err = t.insert(`alerts (`+alertColumns+`)`, ``, rows)
	return err
}

// RaiseAlert opens an alert that is not about a verdict, or counts it where it is open. It stays open until
// CloseAlert.
func (s *Store) RaiseAlert(ctx context.Context, a api.Alert, now time.Time) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		n, err := t.exec(`UPDATE alerts SET last = $1, times = times + 1 WHERE closed = 0 AND machine = $2 AND code = $3`, millis(now), a.Machine, a.Code)
		if err != nil || n > 0 {
			return err
		}
		return t.putAlerts([]api.Alert{a}, now, false)
	})
}

// CloseAlert closes the alert of a machine and code, if it is open.
func (s *Store) CloseAlert(ctx context.Context, machine, code string, now time.Time) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		open, err := t.openAlerts(list{machine})
		if err != nil {
			return err
		}
		if a, ok := open[alertKey{machine, code}]; ok {
			return t.closeAlert(a.Alert, now)
		}
		return nil
	})
}

// Alerts lists the open alerts, with all the closed ones too, of one tenant's VMs ("" of all machines), newest
// first, at most maxAlerts.
func (s *Store) Alerts(ctx context.Context, tenant string, all bool) ([]api.Alert, error) {
	var w where
	if !all {
		w.add(`closed = 0`)
	}
	if tenant != "" {
		w.and(`tenant = `, tenant)
	}
	return listOf(ctx, s, func(r *sql.Rows) (api.Alert, error) {
		a, err := scanAlert(r)
		return a.Alert, err
	}, `SELECT `+alertColumns+` FROM alerts`+w.text()+` ORDER BY id DESC LIMIT `+w.arg(maxAlerts), w.args...)
}

// CountAlerts counts the open alerts that nobody has acknowledged, of one tenant's VMs ("" of all machines).
func (s *Store) CountAlerts(ctx context.Context, tenant string) (n int, err error) {
	err = s.one(ctx, opTimeout, `SELECT COUNT(*) FROM alerts WHERE closed = 0 AND acked = 0 AND (tenant = $1 OR $1 = '')`, []any{tenant}, &n)
	return n, err
}

// AckAlert notes that somebody looks after an alert, and gives it as it is then.
func (s *Store) AckAlert(ctx context.Context, id int64, tenant, who string, now time.Time, by Trail) (*api.Alert, error) {
	var out *api.Alert
	err := s.tx(ctx, opTimeout, func(t *tx) error {
		out = nil
		if err := t.each(func(r *sql.Rows) error {
			a, err := scanAlert(r)
			out = &a.Alert
			return err
		}, `SELECT `+alertColumns+` FROM alerts WHERE id = $1 AND (tenant = $2 OR $2 = '') FOR UPDATE`, id, tenant); err != nil {
			return err
		}
		if out == nil {
			return ErrNotFound
		}
		out.Acked, out.AckedBy = now, who
		b, err := json.Marshal(out)
		if err != nil {
			return err
		}
		t.leave(by)
		t.events = append(t.events, alertEvent(*out, now, "acknowledged by "+who))
		_, err = t.exec(`UPDATE alerts SET acked = $1, data = $2 WHERE id = $3`, max(millis(now), 1), b, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
