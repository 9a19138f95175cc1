package store

import (
	"database/sql"
	"strings"
	"testing"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// plan gives how the database means to run a query.
func plan(t *testing.T, s *Store, query string, args ...any) string {
	t.Helper()
	var b strings.Builder
	must(t, s.tx(t.Context(), opTimeout, func(t *tx) error {
		if s.pool == nil {
			return t.each(func(r *sql.Rows) error {
				var n [3]int
				var line string
				err := r.Scan(&n[0], &n[1], &n[2], &line)
				b.WriteString(line + "\n")
				return err
			}, `EXPLAIN QUERY PLAN `+query, args...)
		}
		for _, q := range []string{`SET LOCAL enable_seqscan = off`, `SET LOCAL plan_cache_mode = force_custom_plan`} { // as with a million rows
			if _, err := t.exec(q); err != nil {
				return err
			}
		}
		return t.each(func(r *sql.Rows) error {
			line, err := scanText(r)
			b.WriteString(line + "\n")
			return err
		}, `EXPLAIN `+query, args...)
	}))
	return b.String()
}

// A page of a million VMs must not read or sort all of them.
func TestVMPage_is_read_in_the_order_of_an_index(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		r := newRounds(t, s, 30, 50)
		for range 30 {
			r.round(t)
		}
		must(t, s.tx(t.Context(), opTimeout, func(t *tx) error { _, err := t.exec(`ANALYZE`); return err }))
		for _, tenant := range []string{"", "blue"} {
			w := vmFilter(api.MachineFilter{}, tenant, t0)
			p := plan(t, s, vmColumns+fromVMs+w.text()+` ORDER BY r.name, r.machine, r.host LIMIT 101`, w.args...)
			index := "results_vms"
			if tenant != "" {
				index = "results_tenant"
			}
			few := s.pool != nil && tenant != "" // the server knows that there is none, and sorts nothing
			if !strings.Contains(p, index) || strings.Contains(p, "TEMP B-TREE") || strings.Contains(p, "Sort Key") && !strings.Contains(p, "Presorted Key") && !few {
				t.Errorf("tenant %q:\n%s", tenant, p)
			}
		}
		w := vmFilter(api.MachineFilter{}, "", t0)
		p := plan(t, s, vmPage(w, []appraise.State{appraise.Untrusted}, list{"h1"}, 101), w.args...)
		for _, index := range []string{"results_doubtful", "results_host", "results_lapsed", "results_outdated"} {
			if !strings.Contains(p, index) {
				t.Errorf("%s is not used:\n%s", index, p)
			}
		}
	})
}

// Every attestation asks where the logs of a host's machines end. If that reads all pieces of all logs, each attestation costs more than the one
// before, and a database that has no statistics yet, which is each new one, carries a fraction of its VMs.
func TestCommit_finds_the_end_of_a_log_by_one_look_in_the_index(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		r := newRounds(t, s, 10, 50)
		for range 30 {
			r.round(t)
		}
		p := plan(t, s, logEnds, list{"a", "b"})
		if sqlite := s.pool == nil; sqlite && strings.Contains(p, "SCAN i\n") || !sqlite && !strings.Contains(p, "Index Scan Backward using ima_pkey") {
			t.Error(p)
		}
	})
}
