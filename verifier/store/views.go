package store

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// What a verdict counts for now, in SQL: evaluate.Current says the same of one. $1 is the time. r is the
// machine's result, h its host's (of a host's own result there is no h).
const (
	hostState = `CASE WHEN h.machine IS NULL THEN 'PENDING' WHEN h.state = 'ROLLBACK' THEN 'UNTRUSTED' WHEN h.state <> 'TRUSTED' THEN h.state
		WHEN h.expires <= $1 THEN 'STALE' WHEN h.outdated > h.generation THEN 'PENDING' ELSE 'TRUSTED' END`
	vmState = `CASE WHEN r.state <> 'TRUSTED' THEN r.state WHEN r.expires <= $1 THEN 'STALE' WHEN r.outdated > r.generation THEN 'PENDING'
		ELSE ` + hostState + ` END`
	ownState = `CASE WHEN o.how = '' OR r.machine IS NULL THEN 'PENDING' WHEN r.state <> 'TRUSTED' THEN r.state WHEN r.expires <= $1 THEN 'STALE'
		WHEN r.outdated > r.generation THEN 'PENDING' ELSE 'TRUSTED' END`
	fromVMs   = ` FROM results r LEFT JOIN results h ON h.machine = r.host AND h.host = r.host AND h.machine = h.host LEFT JOIN hosts o ON o.id = r.host `
	fromHosts = ` FROM hosts o LEFT JOIN results r ON r.machine = o.id AND r.host = o.id `
)

// VMRow is a VM in a list.
type VMRow struct {
	Record
	UUID string
	Name string
	Host string
}

// HostRow is a host in a list.
type HostRow struct {
	Record
	Host Host
	VMs  int // on record
}

// What is not TRUSTED now is so by itself, which an index has in the order of lists, or by the time, by what it is appraised by, or by its
// host. No VM is in both: what these cost grows with the number of such VMs and not with that of all.
const byItself = ` FROM results r WHERE r.state <> 'TRUSTED' AND `

// byOthers has every VM that is TRUSTED by itself and may be something else now. hosts is the argument with the doubtedHosts.
func byOthers(hosts string) string {
	return ` FROM (SELECT DISTINCT machine, host FROM (SELECT machine, host FROM results WHERE lapsed <> 0 AND state = 'TRUSTED'
		UNION ALL SELECT machine, host FROM results WHERE behind <> 0 AND state = 'TRUSTED'
		UNION ALL SELECT v.machine, v.host FROM hosts g CROSS JOIN results v WHERE g.id = ANY(` + hosts + `) AND v.host = g.id AND v.state = 'TRUSTED') AS d) AS k
		CROSS JOIN results r LEFT JOIN results h ON h.machine = r.host AND h.host = r.host LEFT JOIN hosts o ON o.id = r.host WHERE r.machine = k.machine AND r.host = k.host AND `
}

// doubtedHosts gives the hosts whose VMs may be something else than what they are by themselves. next_lapse is not later than the expiry
// of any result of the host that is TRUSTED and not lapsed.
func (s *Store) doubtedHosts(ctx context.Context, now time.Time) (list, error) {
	return listOf(ctx, s, scanText, `SELECT g.id FROM hosts g LEFT JOIN results q ON q.host = g.id AND q.machine = q.host
		WHERE q.machine IS NULL OR q.state <> 'TRUSTED' OR q.expires <= $1 OR q.behind <> 0 OR g.next_lapse > 0 AND g.next_lapse <= $1`, millis(now))
}

// VMPage gives a page of the VMs that a filter selects, of one tenant ("" all), by name, UUID, host.
func (s *Store) VMPage(ctx context.Context, f api.MachineFilter, tenant string, p api.Page, now time.Time) (*api.List[VMRow], error) {
	doubted, err := s.doubtedHosts(ctx, now)
	if err != nil {
		return nil, err
	}
	l := &api.List[VMRow]{}
	if l.Total, err = s.countVMs(ctx, f, tenant, doubted, now); err != nil {
		return nil, err
	}
	w := vmFilter(f, tenant, now)
	if p.Cursor != "" {
		var c [3]string
		if err := openCursor(p.Cursor, &c); err != nil {
			return nil, err
		}
		w.add(fmt.Sprintf(`(r.name, r.machine, r.host) > (%s, %s, %s)`, w.arg(c[0]), w.arg(c[1]), w.arg(c[2])))
	}
	n := pageSize(p)
	l.Items, err = listOf(ctx, s, scanVM, vmPage(w, f.States, doubted, n+1), w.args...)
	if err == nil && len(l.Items) > n {
		l.Items = l.Items[:n]
		last := l.Items[n-1]
		l.Next = cursor(last.Name, last.UUID, last.Host)
	}
	return l, err
}

// vmPage is the query of the first n VMs. Of what is not TRUSTED it finds the keys first, and reads whole rows of no more than those.
func vmPage(w *where, states []appraise.State, doubted list, n int) string {
	end := ` ORDER BY r.name, r.machine, r.host LIMIT ` + w.arg(n)
	if len(states) == 0 || slices.Contains(states, appraise.Trusted) {
		if len(states) > 0 {
			w.add(w.stateIn(vmState, states))
		}
		return vmColumns + fromVMs + w.text() + end
	}
	keys, all := `SELECT * FROM (SELECT r.name, r.machine, r.host`, w.all()
	return vmColumns + ` FROM (` + keys + byItself + all + ` AND ` + w.stateIn(`r.state`, states) + end + `) AS a UNION ALL ` +
		keys + byOthers(w.arg(doubted)) + all + ` AND ` + w.stateIn(vmState, states) + end + `) AS b) AS p CROSS JOIN results r
		LEFT JOIN results h ON h.machine = r.host AND h.host = r.host LEFT JOIN hosts o ON o.id = r.host WHERE r.machine = p.machine AND r.host = p.host` + end
}

// countVMs counts the VMs that a filter selects. TRUSTED ones are those that are nothing else.
func (s *Store) countVMs(ctx context.Context, f api.MachineFilter, tenant string, doubted list, now time.Time) (int, error) {
	w := vmFilter(f, tenant, now)
	all, not := 0, ``
	trusted := slices.Contains(f.States, appraise.Trusted)
	if len(f.States) == 0 || trusted {
		if err := s.one(ctx, opTimeout, `SELECT COUNT(*) FROM results r`+w.text(), w.args, &all); err != nil || len(f.States) == 0 {
			return all, err
		}
		not = `NOT `
	}
	some := 0
	for _, from := range []string{byItself, ``} {
		w, n, state := vmFilter(f, tenant, now), 0, `r.state`
		if from == `` {
			from, state = byOthers(w.arg(doubted)), vmState
		}
		w.add(not + w.stateIn(state, f.States))
		if err := s.one(ctx, opTimeout, `SELECT COUNT(*)`+from+w.all(), w.args, &n); err != nil {
			return 0, err
		}
		some += n
	}
	if trusted {
		some = max(all-some, 0)
	}
	return some, nil
}

const vmColumns = `SELECT ` + resultColumns + `, ` + vmState + `, COALESCE(o.name, ''), COALESCE(h.name, ''), COALESCE(h.report, ''), COALESCE(h.at, 0), COALESCE(h.expires, 0),
	COALESCE(h.outdated, 0), COALESCE(h.generation, 0), h.result`

// vmFilter gives the conditions of a list of VMs, but for their states; $1 is the time.
func vmFilter(f api.MachineFilter, tenant string, now time.Time) *where {
	w := &where{args: []any{millis(now)}}
	w.add(`r.machine <> r.host AND CAST($1 AS BIGINT) >= 0`)
	if tenant != "" {
		w.and(`r.tenant = `, tenant)
	}
	if f.Tenant != "" {
		w.and(`r.tenant = `, f.Tenant)
	}
	if f.Host != "" {
		w.add(fmt.Sprintf(`r.host IN (SELECT id FROM hosts WHERE id = %s OR name = %[1]s)`, w.arg(f.Host)))
	}
	if f.Text != "" {
		part, head := w.arg("%"+likeText(f.Text)+"%"), w.arg(likeText(strings.ToLower(f.Text))+"%")
		w.add(fmt.Sprintf(`(LOWER(r.name) LIKE LOWER(%s) ESCAPE '\' OR r.machine LIKE %s ESCAPE '\')`, part, head))
	}
	return w
}

func (w *where) states(expression string, states []appraise.State) {
	w.add(w.stateIn(expression, states))
}

func (w *where) stateIn(expression string, states []appraise.State) string {
	var l list
	for _, st := range states {
		l = append(l, string(st))
	}
	return `(` + expression + `) = ANY(` + w.arg(l) + `)`
}

// copied gives the arguments for a query that is not the last one.
func (w *where) copied() []any { return append([]any{}, w.args...) }

func likeText(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s)
}

func scanVM(r *sql.Rows) (v VMRow, err error) {
	var row, h result
	var state string
	if err := r.Scan(append(row.into(), &state, &v.HostName, &h.name, &h.report, &h.at, &h.expires, &h.outdated, &h.generation, &h.body)...); err != nil {
		return v, err
	}
	v.UUID, v.Name, v.Host = row.machine, row.name, row.host
	if err := v.fill(&row, state); err != nil {
		return v, err
	}
	if len(h.body) > 0 {
		h.machine, h.host = row.host, row.host
		v.HostOutdated = h.outdated > h.generation
		v.Record.Host, err = h.result()
	}
	return v, err
}

func (rec *Record) fill(row *result, state string) (err error) {
	rec.Outdated, rec.Tenant, rec.Generation, rec.Since = row.outdated > row.generation, row.tenant, row.generation, fromMillis(row.since)
	rec.Attested, rec.State = len(row.body) > 0, appraise.State(state)
	rec.Result, err = row.result()
	return err
}

// VMsOf gives a VM's rows by its UUID or name: one per host that runs it or ran it last.
func (s *Store) VMsOf(ctx context.Context, name, tenant string, now time.Time) ([]VMRow, error) {
	return listOf(ctx, s, scanVM, vmColumns+fromVMs+`WHERE r.machine <> r.host AND (r.machine = $2 OR r.name = $2) AND (r.tenant = $3 OR $3 = '') ORDER BY r.machine, r.host`,
		millis(now), name, tenant)
}

// VMsOn gives the rows of the VMs that a host says it runs.
func (s *Store) VMsOn(ctx context.Context, host string, now time.Time) ([]VMRow, error) {
	return listOf(ctx, s, scanVM, vmColumns+fromVMs+`WHERE r.machine <> r.host AND r.host = $2 AND EXISTS (SELECT 1 FROM claims c WHERE c.host = r.host AND c.uuid = r.machine) ORDER BY r.machine`,
		millis(now), host)
}

// HostPage gives a page of the hosts that a filter selects, by name and ID. With a tenant: those that have VMs of it.
func (s *Store) HostPage(ctx context.Context, f api.MachineFilter, tenant string, p api.Page, now time.Time) (*api.List[HostRow], error) {
	w := &where{args: []any{millis(now)}}
	w.add(`CAST($1 AS BIGINT) >= 0`)
	if tenant != "" {
		w.add(`o.id IN (SELECT host FROM results WHERE tenant = ` + w.arg(tenant) + ` AND machine <> host)`)
	}
	if f.Host != "" {
		w.add(fmt.Sprintf(`(o.id = %s OR o.name = %[1]s)`, w.arg(f.Host)))
	}
	if len(f.States) > 0 {
		w.states(ownState, f.States)
	}
	if f.Text != "" {
		part, head := w.arg("%"+likeText(f.Text)+"%"), w.arg(likeText(strings.ToLower(f.Text))+"%")
		w.add(fmt.Sprintf(`(LOWER(o.name) LIKE LOWER(%s) ESCAPE '\' OR o.id LIKE %s ESCAPE '\')`, part, head))
	}
	l := &api.List[HostRow]{}
	if err := s.one(ctx, opTimeout, `SELECT COUNT(*)`+fromHosts+w.text(), w.copied(), &l.Total); err != nil {
		return nil, err
	}
	if p.Cursor != "" {
		var c [2]string
		if err := openCursor(p.Cursor, &c); err != nil {
			return nil, err
		}
		w.add(fmt.Sprintf(`(o.name, o.id) > (%s, %s)`, w.arg(c[0]), w.arg(c[1])))
	}
	n := pageSize(p)
	var err error
	l.Items, err = listOf(ctx, s, scanHostRow, hostSelect+w.text()+` ORDER BY o.name, o.id LIMIT `+w.arg(n+1), w.args...)
	if err == nil && len(l.Items) > n {
		l.Items = l.Items[:n]
		last := l.Items[n-1].Host
		l.Next = cursor(last.Name, last.ID)
	}
	return l, err
}

const hostSelect = `SELECT o.id, o.name, o.client, o.ek, o.ek_cert, o.ak, o.ak_name, o.how, o.software, o.first_seen, o.last_seen,
	(SELECT COUNT(*) FROM results n WHERE n.host = o.id AND n.machine <> n.host), ` + ownState + `, COALESCE(r.report, ''), COALESCE(r.at, 0), COALESCE(r.expires, 0), COALESCE(r.since, 0),
	COALESCE(r.outdated, 0), COALESCE(r.generation, 0), r.result` + fromHosts

func scanHostRow(r *sql.Rows) (v HostRow, err error) {
	row := result{}
	var state string
	if v.Host, err = scanHostInto(r, &v.VMs, &state, &row.report, &row.at, &row.expires, &row.since, &row.outdated, &row.generation, &row.body); err != nil {
		return v, err
	}
	row.machine, row.host, row.name = v.Host.ID, v.Host.ID, v.Host.Name
	return v, v.fill(&row, state)
}

// HostRows gives the rows of hosts by their IDs.
func (s *Store) HostRows(ctx context.Context, ids []string, now time.Time) ([]HostRow, error) {
	return listOf(ctx, s, scanHostRow, hostSelect+`WHERE o.id = ANY($2) ORDER BY o.name, o.id`, millis(now), list(ids))
}

// Counts counts hosts and VMs by what they are now. With a tenant: its VMs, and the hosts that have some.
func (s *Store) Counts(ctx context.Context, tenant string, now time.Time) (hosts, vms api.Counts, err error) {
	count := func(query string, args ...any) (api.Counts, error) {
		c := make(api.Counts)
		err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
			var state string
			var n int
			err := r.Scan(&state, &n)
			c[appraise.State(state)] += n
			return err
		}, query, args...)
		return c, err
	}
	hosts, err = count(`SELECT `+ownState+`, COUNT(*)`+fromHosts+`WHERE $2 = '' OR o.id IN (SELECT host FROM results WHERE tenant = $2 AND machine <> host) GROUP BY 1`, millis(now), tenant)
	if err != nil {
		return nil, nil, err
	}
	doubted, err := s.doubtedHosts(ctx, now)
	if err != nil {
		return nil, nil, err
	}
	vms = make(api.Counts)
	for _, from := range []string{byItself, ``} {
		w, state := vmFilter(api.MachineFilter{}, tenant, now), `r.state`
		if from == `` {
			from, state = byOthers(w.arg(doubted)), vmState
		}
		some, err := count(`SELECT `+state+`, COUNT(*)`+from+w.all()+` GROUP BY 1`, w.args...)
		if err != nil {
			return nil, nil, err
		}
		for st, n := range some {
			vms[st] += n
		}
	}
	all, err := s.countVMs(ctx, api.MachineFilter{}, tenant, doubted, now)
	for state, n := range vms {
		if state != appraise.Trusted {
			all -= n
		}
	}
	if delete(vms, appraise.Trusted); all > 0 {
		vms[appraise.Trusted] = all
	}
	return hosts, vms, err
}

// Reasons ranks why machines are not TRUSTED by themselves, by the code of their first reason, commonest first, at most n.
func (s *Store) Reasons(ctx context.Context, tenant string, n int) ([]api.ReasonRank, error) {
	return listOf(ctx, s, func(r *sql.Rows) (v api.ReasonRank, err error) {
		err = r.Scan(&v.Code, &v.Count)
		return v, err
	}, `SELECT reason, COUNT(*) FROM results WHERE reason <> '' AND (tenant = $1 OR $1 = '') GROUP BY reason ORDER BY 2 DESC, 1 LIMIT $2`, tenant, n)
}

func pageSize(p api.Page) int {
	if p.Limit <= 0 {
		return api.DefaultPageSize
	}
	return min(p.Limit, api.MaxPageSize)
}

// ErrCursor says that a page's cursor is none that was given out.
var ErrCursor = fmt.Errorf("%w: this is no cursor of a page", ErrNotFound)

func cursor(parts ...any) string {
	b, err := json.Marshal(parts)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func openCursor(c string, into any) error {
	b, err := base64.RawURLEncoding.DecodeString(c)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return ErrCursor
	}
	return nil
}

// cursorOf opens the cursor of a list that is newest first; the end of time where there is none.
func cursorOf(c string) (at int64, id string, err error) {
	if c == "" {
		return 1 << 62, "", nil
	}
	err = openCursor(c, &[]any{&at, &id})
	return at, id, err
}
