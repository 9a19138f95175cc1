package store

import (
	"bytes"
	"database/sql"
	"testing"
	"time"

	"virt-attest/attest"
)

func (s *Store) copies(t *testing.T) (n int) {
	t.Helper()
	must(t, s.each(t.Context(), opTimeout, func(r *sql.Rows) error { return r.Scan(&n) }, `SELECT COUNT(*) FROM boot_data`))
	return n
}

func boots(id string, revision int64, boot, data string) Advance {
	a := advance(revision, nil, 0)
	a.ID, a.BootID, a.Boot = id, boot, &BootLog{BootID: boot, Data: []byte(data)}
	return a
}

func TestBootLogs_are_kept_once_for_all_machines_that_boot_alike(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		o := outcome(1, t0)
		o.Advances = []Advance{boots(vm2.String(), 0, "boot", "alike"), boots(vm1.String(), 0, "boot", "alike"), boots("h1", 0, "hb", "other")}
		must(t, s.Commit(t.Context(), o))
		o = outcome(2, t0.Add(time.Second))
		o.Advances = []Advance{boots(vm1.String(), 1, "boot", "alike")}
		must(t, s.Commit(t.Context(), o))
		if n := s.copies(t); n != 2 {
			t.Errorf("%d copies of 2 logs", n)
		}
		got, err := s.BootLogs(t.Context(), map[string]string{vm1.String(): "boot", vm2.String(): "boot", "h1": "another", "h2": "boot"}, attest.MaxBootLog)
		must(t, err)
		if len(got) != 2 || string(got[vm1.String()]) != "alike" || string(got[vm2.String()]) != "alike" {
			t.Errorf("%q", got)
		}
		got, err = s.BootLogs(t.Context(), map[string]string{vm1.String(): "boot"}, 4)
		must(t, err)
		if len(got) != 0 {
			t.Errorf("more than the limit: %q", got)
		}
		o = outcome(3, t0.Add(2*time.Second))
		o.Advances = []Advance{boots(vm1.String(), 2, "boot", "corrected")}
		must(t, s.Commit(t.Context(), o))
		b, err := s.BootLog(t.Context(), vm1.String(), "boot")
		must(t, err)
		if !bytes.Equal(b, []byte("corrected")) {
			t.Errorf("%q", b)
		}
	})
}

func TestBootLogs_go_with_their_machine_and_when_nothing_on_record_is_about_their_boot(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		o := outcome(1, t0)
		o.Advances = []Advance{boots(vm1.String(), 0, "boot", "of vm1"), boots(vm2.String(), 0, "boot", "of vm2"), boots("h1", 0, "hb", "of h1")}
		must(t, s.Commit(t.Context(), o))
		keep := Retention{Reports: 1, Evidence: 1, Age: time.Hour}
		after := t0.Add(time.Minute)
		must(t, s.Prune(t.Context(), keep, after))
		if n := s.copies(t); n != 3 {
			t.Fatalf("%d logs, though machines are in these boots", n)
		}
		rebooted := func(n byte, at time.Time, revision int64) {
			o := outcome(n, at)
			o.Evidence.VMs[0].IMA.BootID = "later"
			o.Advances = []Advance{boots(vm1.String(), revision, "later", "of vm1's later boot")}
			must(t, s.Commit(t.Context(), o))
		}
		rebooted(2, t0.Add(time.Second), 1)
		must(t, s.Prune(t.Context(), Retention{Reports: 9, Evidence: 9, Age: time.Hour}, after))
		_, err := s.BootLog(t.Context(), vm1.String(), "boot")
		is(t, "the boot that evidence on record is about", err, nil)
		must(t, s.Prune(t.Context(), keep, after))
		_, err = s.BootLog(t.Context(), vm1.String(), "boot")
		is(t, "the boot that nothing is about", err, ErrNotFound)
		_, err = s.BootLog(t.Context(), vm1.String(), "later")
		is(t, "the boot of now", err, nil)

		must(t, s.DeleteVM(t.Context(), vm1, Trail{}))
		_, err = s.BootLog(t.Context(), vm1.String(), "later")
		is(t, "a VM that was forgotten", err, ErrNotFound)
		must(t, s.DeleteHost(t.Context(), "h1", Trail{}))
		_, err = s.BootLog(t.Context(), "h1", "hb")
		is(t, "a host that was removed", err, ErrNotFound)
		must(t, s.Prune(t.Context(), keep, after))
		if n := s.copies(t); n != 1 {
			t.Errorf("%d logs are kept, vm2 has one", n)
		}
	})
}
