package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// result is a row of results.
type result struct {
	machine, host, name, tenant, report string
	created, at, expires, since, lapsed int64
	state, reason, digest               string
	generation, outdated                int64
	body                                []byte // JSON of the appraise.Result, without what stands in columns; empty: never attested
	reasons                             []appraise.Reason
	unknown                             bool // there was no row
}

// resultRows makes the rows of a report's results.
func resultRows(host string, results []appraise.Result) ([]*result, error) {
	rows := make([]*result, 0, len(results))
	seen := make(map[string]bool, len(results))
	for i := range results {
		row, err := resultRow(host, results[i])
		if err != nil {
			return nil, err
		}
		if !seen[row.machine] {
			seen[row.machine] = true
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func resultRow(host string, r appraise.Result) (*result, error) {
	row := &result{machine: host, host: host, name: r.Name, report: r.Report, at: millis(r.Time), expires: millis(r.Expires), state: string(r.State),
		digest: digest(r), reasons: r.Reasons}
	if r.UUID != (attest.UUID{}) {
		row.machine = r.UUID.String()
	}
	if len(r.Reasons) > 0 {
		row.reason = string(r.Reasons[0].Code)
	}
	r.Report, r.Time, r.Expires = "", time.Time{}, time.Time{}
	var err error
	row.body, err = json.Marshal(r)
	return row, err
}

// result gives back what resultRow took apart.
func (row *result) result() (appraise.Result, error) {
	if len(row.body) == 0 {
		r := appraise.Result{Name: row.name, Host: row.host, State: appraise.Pending, Reasons: []appraise.Reason{{Code: appraise.CodeNeverAttested,
			Layer: appraise.LayerVerifier, Text: "never attested", Hint: "Attest the machine."}}}
		var err error
		if row.machine != row.host {
			r.UUID, err = attest.ParseUUID(row.machine)
		}
		return r, err
	}
	var r appraise.Result
	if err := json.Unmarshal(row.body, &r); err != nil {
		return r, err
	}
	r.Report, r.Time, r.Expires = row.report, fromMillis(row.at), fromMillis(row.expires)
	return r, nil
}

// digest tells whether a verdict is another one: its state, and its reasons without their wording.
func digest(r appraise.Result) string {
	if r.State == appraise.Trusted && len(r.Reasons) == 0 {
		return string(appraise.Trusted)
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\n", r.State)
	for _, w := range r.Reasons {
		pcr := -1
		if w.PCR != nil {
			pcr = int(*w.PCR)
		}
		_, _ = fmt.Fprintf(h, "%s %s %d %q %q\n", w.Code, w.Layer, pcr, w.Path, w.Digest)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

const resultColumns = `r.machine, r.host, r.name, r.tenant, r.report, r.created, r.at, r.expires, r.since, r.lapsed, r.state, r.reason, r.digest, r.generation, r.outdated, r.result`

func (row *result) into() []any {
	return []any{&row.machine, &row.host, &row.name, &row.tenant, &row.report, &row.created, &row.at, &row.expires, &row.since, &row.lapsed,
		&row.state, &row.reason, &row.digest, &row.generation, &row.outdated, &row.body}
}

// verdicts are results of one host's machines on their way onto the record.
type verdicts struct {
	host       string
	created    int64
	generation int64 // 0: the one that is now
	rows       []*result
	alerts     []api.Alert
	restate    bool // results of reports on record, judged anew
}

// moment is what is new about a verdict that is the same as before.
type moment struct {
	report               string
	created, at, expires int64
}

// putResults puts results on record, and events of those that are different from before.
func (t *tx) putResults(v *verdicts) error {
	if v.generation == 0 { // nothing was appraised by anything
		if err := t.one(`SELECT value FROM counters WHERE name = 'generation'`, nil, &v.generation); err != nil {
			return err
		}
	}
	before, err := t.resultsOf(v.host)
	if err != nil {
		return err
	}
	var changed, fresh []*result
	written := make(list, 0, len(v.rows))
	same := make(map[moment]list) // whose only change is time
	for _, r := range v.rows {
		was := before[r.machine]
		if r.created = v.created; v.restate && was != nil {
			r.created = was.created
		}
		if was == nil && v.restate || was != nil && (was.created > r.created || v.restate && was.report != r.report) {
			continue
		}
		r.generation, r.since = v.generation, r.created
		written = append(written, r.machine)
		if was == nil {
			r.unknown = true
			fresh = append(fresh, r)
			changed = append(changed, r)
			before[r.machine] = r
			continue
		}
		r.tenant, r.outdated, r.name = was.tenant, was.outdated, orText(r.name, was.name)
		if r.digest != was.digest || was.lapsed != 0 || was.report == "" {
			changed = append(changed, r)
		} else {
			r.since = was.since
			if bytes.Equal(r.body, was.body) && r.name == was.name {
				key := moment{r.report, r.created, r.at, r.expires}
				same[key] = append(same[key], r.machine)
				before[r.machine] = r
				continue
			}
		}
		fresh = append(fresh, r)
	}
	if err := t.findTenants(fresh); err != nil {
		return err
	}
	if err := t.findOutdated(fresh); err != nil {
		return err
	}
	if err := t.writeResults(v, fresh, same); err != nil {
		return err
	}
	for _, r := range changed {
		t.events = append(t.events, verdictEvent(r, before[r.machine], v))
	}
	for _, r := range fresh {
		before[r.machine] = r
	}
	if err := t.setLapse(v.host, before); err != nil {
		return err
	}
	if len(written) > 0 {
		t.publish(TopicVerdict, v.host)
	}
	return t.reconcileAlerts(v, written, len(changed) > 0)
}

func orText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// resultsOf gives the results of a host's machines by machine.
func (t *tx) resultsOf(host string) (map[string]*result, error) {
	m := make(map[string]*result)
	err := t.each(func(r *sql.Rows) error {
		row := new(result)
		err := r.Scan(row.into()...)
		m[row.machine] = row
		return err
	}, `SELECT `+resultColumns+` FROM results r WHERE r.host = $1`, host)
	return m, err
}

// findTenants gives rows that are new their machines' tenants.
func (t *tx) findTenants(fresh []*result) error {
	var ids list
	for _, r := range fresh {
		if r.tenant == "" {
			ids = append(ids, r.machine)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	tenants, err := t.tenants(ids)
	for _, r := range fresh {
		r.tenant = orText(r.tenant, tenants[r.machine])
	}
	return err
}

// findOutdated marks rows of machines that had none: a change since their reference values were read may concern them, and
// had nothing to mark.
func (t *tx) findOutdated(fresh []*result) error {
	var now int64
	for _, r := range fresh {
		if !r.unknown {
			continue
		}
		if now == 0 {
			if err := t.one(`SELECT value FROM counters WHERE name = 'generation'`, nil, &now); err != nil {
				return err
			}
		}
		if r.generation < now {
			r.outdated = now
		}
	}
	return nil
}

func (t *tx) tenants(ids list) (map[string]string, error) {
	m := make(map[string]string)
	err := t.each(func(r *sql.Rows) error {
		var id, tenant string
		err := r.Scan(&id, &tenant)
		m[id] = tenant
		return err
	}, `SELECT machine, tenant FROM settings WHERE machine = ANY($1) AND tenant <> ''`, ids)
	return m, err
}

func (t *tx) writeResults(v *verdicts, fresh []*result, same map[moment]list) error {
	rows := make([][]any, 0, len(fresh))
	for _, r := range fresh {
		rows = append(rows, []any{r.machine, v.host, r.name, r.tenant, r.report, r.created, r.at, r.state, r.reason, r.expires, r.since, r.digest, r.generation, r.outdated, boolInt(r.outdated > r.generation), r.body})
	}
	_, err := t.insert(`results (machine, host, name, tenant, report, created, at, state, reason, expires, since, digest, generation, outdated, behind, result)`,
		`ON CONFLICT (machine, host) DO UPDATE SET name = excluded.name, report = excluded.report, created = excluded.created,
			at = excluded.at, state = excluded.state, reason = excluded.reason, expires = excluded.expires, since = excluded.since, digest = excluded.digest,
			generation = excluded.generation, behind = CASE WHEN results.outdated > excluded.generation THEN 1 ELSE 0 END, lapsed = 0, result = excluded.result`, rows)
	if err != nil {
		return err
	}
	for k, machines := range same {
		_, err := t.exec(`UPDATE results SET report = $1, created = $2, at = $3, expires = $4, generation = $5, behind = CASE WHEN outdated > $5 THEN 1 ELSE 0 END WHERE host = $6 AND machine = ANY($7)`,
			k.report, k.created, k.at, k.expires, v.generation, v.host, machines)
		if err != nil {
			return err
		}
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// setLapse notes when the next of a host's TRUSTED results runs out, so that nobody has to look at all of them.
func (t *tx) setLapse(host string, rows map[string]*result) error {
	next := int64(0)
	for _, r := range rows {
		if r.state == string(appraise.Trusted) && r.lapsed == 0 && (next == 0 || r.expires < next) {
			next = r.expires
		}
	}
	_, err := t.exec(`UPDATE hosts SET next_lapse = $1 WHERE id = $2 AND next_lapse <> $1`, next, host)
	return err
}

func verdictEvent(r, was *result, v *verdicts) api.Event {
	e := api.Event{Time: fromMillis(v.created), Kind: api.EventVerdict, Machine: r.machine, Name: r.name, Host: v.host, Tenant: r.tenant,
		State: appraise.State(r.state), Reasons: r.reasons, Report: r.report}
	switch {
	case was == nil || was == r || was.report == "":
	case was.lapsed != 0:
		e.Before = appraise.Stale
	default:
		e.Before = appraise.State(was.state)
	}
	e.Text = fmt.Sprintf("%s is %s", title(r.machine, r.name), r.state)
	if len(r.reasons) > 0 {
		e.Text += ": " + r.reasons[0].Text
	}
	return e
}

// title calls a machine by its name.
func title(machine, name string) string {
	what := "host "
	if isVM(machine) {
		what = "VM "
	}
	return what + orText(name, machine)
}

// isVM tells a VM's UUID from a host's ID.
func isVM(machine string) bool { return strings.Contains(machine, "-") }

// Lapsed marks up to n TRUSTED results that have run out, writes events of them, and says how many there were.
func (s *Store) Lapsed(ctx context.Context, now time.Time, n int) (int, error) {
	hosts, err := listOf(ctx, s, scanText, `SELECT id FROM hosts WHERE next_lapse > 0 AND next_lapse <= $1 ORDER BY next_lapse LIMIT $2`, millis(now), n)
	if err != nil {
		return 0, err
	}
	told := 0
	for _, h := range hosts {
		if told >= n {
			break
		}
		err := s.tx(ctx, opTimeout, func(t *tx) error {
			k, err := t.lapse(h, now)
			told += k
			return err
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return told, err
		}
	}
	return told, nil
}

func (t *tx) lapse(host string, now time.Time) (int, error) {
	if err := t.lockHost(host); err != nil {
		return 0, err
	}
	rows, err := t.resultsOf(host)
	if err != nil {
		return 0, err
	}
	var gone list
	for _, r := range rows {
		if r.state != string(appraise.Trusted) || r.lapsed != 0 || r.expires > millis(now) {
			continue
		}
		r.lapsed = max(millis(now), 1)
		gone = append(gone, r.machine)
		t.events = append(t.events, api.Event{Time: now, Kind: api.EventVerdict, Machine: r.machine, Name: r.name, Host: host, Tenant: r.tenant,
			State: appraise.Stale, Before: appraise.Trusted, Report: r.report, Text: title(r.machine, r.name) + " is STALE: the verdict has expired"})
	}
	slices.SortFunc(t.events, func(a, b api.Event) int { return strings.Compare(a.Machine, b.Machine) })
	if len(gone) > 0 {
		if _, err := t.exec(`UPDATE results SET lapsed = $1 WHERE host = $2 AND machine = ANY($3)`, max(millis(now), 1), host, gone); err != nil {
			return 0, err
		}
	}
	return len(gone), t.setLapse(host, rows)
}
