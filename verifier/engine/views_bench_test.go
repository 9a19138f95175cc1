package engine

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// seed puts hosts with 100 VMs each on record, of which every tenth is not TRUSTED.
func (w *world) seed(r *replica, vms int) {
	w.t.Helper()
	body, err := json.Marshal(appraise.Result{State: appraise.Trusted, Reasons: []appraise.Reason{}, Scheme: attest.SchemeSEPA, Entries: 2000, RIM: "good", Policy: "default-vm"})
	must(w.t, err)
	bad, err := json.Marshal(appraise.Result{State: appraise.Untrusted, Reasons: []appraise.Reason{{Code: appraise.CodeIMAUnlisted, Layer: appraise.LayerVM, Text: "odd"}}})
	must(w.t, err)
	series, uuid, host := `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < %d)`, `printf('00000000-0000-4000-8000-%012x', i)`, `printf('%032x', i / 100)`
	if w.conf.URL != "" {
		series, uuid, host = `WITH n(i) AS (SELECT generate_series(0, %d - 1))`, `'00000000-0000-4000-8000-' || lpad(to_hex(i), 12, '0')`, `lpad(to_hex(i / 100), 32, '0')`
	}
	now := time.Now().UnixMilli()
	hosts := fmt.Sprintf(series, vms/100)
	hostID := `printf('%032x', i)`
	if w.conf.URL != "" {
		hostID = `lpad(to_hex(i), 32, '0')`
	}
	w.exec(r, `INSERT INTO hosts (id, name, client, ek, ek_cert, ak, ak_name, how, software, first_seen, last_seen) `+hosts+`
		SELECT `+hostID+`, 'kvm' || i, '', $1, $1, $1, '', 'operator', '[]', $2, $2 FROM n`, []byte{}, now)
	w.exec(r, `INSERT INTO results (machine, host, name, report, created, at, state, reason, expires, since, digest, generation, result) `+hosts+`
		SELECT `+hostID+`, `+hostID+`, 'kvm' || i, 'r', $1, $1, 'TRUSTED', '', $2, $1, 'TRUSTED', 1, $3 FROM n`, now, now+3_600_000, body)
	w.exec(r, `INSERT INTO results (machine, host, name, report, created, at, state, reason, expires, since, digest, generation, result) `+fmt.Sprintf(series, vms)+`
		SELECT `+uuid+`, `+host+`, 'vm' || i, 'r', $1, $1, 'TRUSTED', '', $2, $1, 'd', 1, $3 FROM n`, now, now+3_600_000, body)
	w.exec(r, `UPDATE results SET state = 'UNTRUSTED', reason = 'ima-unlisted', result = $1 WHERE name LIKE 'vm%0'`, bad)
	w.exec(r, `ANALYZE`)
}

// exec runs a statement past the store.
func (w *world) exec(r *replica, query string, args ...any) {
	w.t.Helper()
	if p := r.st.Pool(); p != nil {
		_, err := p.Exec(w.t.Context(), query, args...)
		must(w.t, err)
		return
	}
	db, err := sql.Open("sqlite", w.conf.Path)
	must(w.t, err)
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(w.t.Context(), query, args...)
	must(w.t, err)
}

func BenchmarkViews(b *testing.B) {
	for _, c := range []struct {
		name string
		vms  int
		on   func(testing.TB) *world
	}{{"sqlite-10000", 10_000, onSQLite}, {"postgres-10000", 10_000, onPostgres}, {"postgres-1000000", 1_000_000, onPostgres}} {
		b.Run(c.name, func(b *testing.B) {
			w := c.on(b)
			r := w.start()
			w.seed(r, c.vms)
			for name, f := range map[string]func() error{
				"overview": func() error { _, err := r.Overview(b.Context(), operator()); return err },
				"vms":      func() error { _, err := r.VMs(b.Context(), operator(), api.MachineFilter{}, api.Page{}); return err },
				"untrusted": func() error {
					_, err := r.VMs(b.Context(), operator(), api.MachineFilter{States: []appraise.State{appraise.Untrusted}}, api.Page{})
					return err
				},
				"hosts": func() error { _, err := r.Hosts(b.Context(), operator(), api.MachineFilter{}, api.Page{}); return err },
				"vm":    func() error { _, err := r.VM(b.Context(), operator(), "vm77"); return err },
			} {
				b.Run(name, func(b *testing.B) {
					for b.Loop() {
						must(b, f())
					}
				})
			}
		})
	}
}
