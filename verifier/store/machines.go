package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
)

// Machine is how far a machine's measurements were replayed.
type Machine struct {
	ID       string      // a VM's UUID or a host's ID
	EKName   attest.Name // of the TPM that proved it
	BootID   string
	Entries  uint64 // of the IMA log
	Revision int64  // of this record; 0 for one that is not there
	State    []byte // the appraiser's own, JSON
}

// VTPM is a virtual TPM that an approved host linked.
type VTPM struct {
	EKName attest.Name
	UUID   attest.UUID
	AKName attest.Name // proven by activation; nil while only HYPA was used
	Host   string      // where it ran last; "" if that host said that it left
	First  time.Time   // zero for one that is not on record yet
	Last   time.Time
}

// Machine gives a machine's record, or a zero one with the ID only.
func (s *Store) Machine(ctx context.Context, id string) (Machine, error) {
	m, err := s.MachinesOf(ctx, []string{id})
	return m[id], err
}

// MachinesOf gives the records of machines by their IDs; of those that are not on record, zero ones with the ID only.
func (s *Store) MachinesOf(ctx context.Context, ids []string) (map[string]Machine, error) {
	out := make(map[string]Machine, len(ids))
	for _, id := range ids {
		out[id] = Machine{ID: id}
	}
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var m Machine
		var ek string
		var entries int64
		err := r.Scan(&m.ID, &ek, &m.BootID, &entries, &m.Revision, &m.State)
		if err == nil {
			m.EKName, err = hex.DecodeString(ek)
		}
		m.Entries = uint64(entries)
		out[m.ID] = m
		return err
	}, `SELECT machine, ek_name, boot_id, entries, revision, state FROM machines WHERE machine = ANY($1)`, list(ids))
	return out, err
}

// VTPMs gives the vTPMs on record whose EK is ek or which belong to VM vm: none, one, or two
// that contradict each other.
func (s *Store) VTPMs(ctx context.Context, vm attest.UUID, ek attest.Name) ([]VTPM, error) {
	return s.VTPMsOf(ctx, []attest.UUID{vm}, []attest.Name{ek})
}

// VTPMsOf gives the vTPMs on record that belong to one of the VMs or have one of the EKs, each once.
func (s *Store) VTPMsOf(ctx context.Context, vms []attest.UUID, eks []attest.Name) ([]VTPM, error) {
	uuids, names := make(list, len(vms)), make(list, len(eks))
	for i, v := range vms {
		uuids[i] = v.String()
	}
	for i, n := range eks {
		names[i] = n.String()
	}
	return s.vtpms(ctx, `WHERE uuid = ANY($1) UNION SELECT `+vtpmColumns+` FROM vtpms WHERE ek_name = ANY($2) ORDER BY 2`, uuids, names)
}

// AllVTPMs gives a page of all vTPMs by UUID, those after the one given.
func (s *Store) AllVTPMs(ctx context.Context, after attest.UUID, n int) ([]VTPM, error) {
	return s.vtpms(ctx, `WHERE uuid > $1 ORDER BY uuid LIMIT $2`, after.String(), n)
}

// CountVTPMs counts the vTPMs on record.
func (s *Store) CountVTPMs(ctx context.Context) (n int, err error) {
	err = s.one(ctx, opTimeout, `SELECT COUNT(*) FROM vtpms`, nil, &n)
	return n, err
}

const vtpmColumns = `ek_name, uuid, ak_name, host, first_seen, last_seen`

func (s *Store) vtpms(ctx context.Context, where string, args ...any) ([]VTPM, error) {
	return listOf(ctx, s, func(r *sql.Rows) (VTPM, error) {
		var v VTPM
		var ek, uuid, ak string
		var first, last int64
		if err := r.Scan(&ek, &uuid, &ak, &v.Host, &first, &last); err != nil {
			return v, err
		}
		v.First, v.Last = fromMillis(first), fromMillis(last)
		var err1, err2, err3 error
		v.EKName, err1 = hex.DecodeString(ek)
		v.UUID, err2 = attest.ParseUUID(uuid)
		v.AKName, err3 = hex.DecodeString(ak)
		return v, errors.Join(err1, err2, err3)
	}, `SELECT `+vtpmColumns+` FROM vtpms `+where, args...)
}

// DeleteVM forgets a VM: its vTPM, replay state, logs, alerts and results. Its settings stay, without secrets: the next
// attestation enrols whatever vTPM it has then and judges it as before. Where a host says that it runs, it goes on as one that was never attested.
func (s *Store) DeleteVM(ctx context.Context, vm attest.UUID, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		var n int64
		for _, q := range []string{`DELETE FROM alerts WHERE closed = 0 AND machine = host AND code = 'vm-missing' AND host IN (SELECT host FROM results WHERE machine = $1 AND reason = 'vm-missing')`, // it may have been the last one
			`DELETE FROM vtpms WHERE uuid = $1`, `DELETE FROM machines WHERE machine = $1`,
			`DELETE FROM ima WHERE machine = $1`, `DELETE FROM boot_logs WHERE machine = $1`, `DELETE FROM results WHERE machine = $1`,
			`DELETE FROM alerts WHERE machine = $1`} {
			k, err := t.exec(q, vm.String())
			if err != nil {
				return err
			}
			n += k
		}
		if n == 0 {
			return ErrNotFound
		}
		// Its secrets were for the vTPM that it had.
		if _, err := t.exec(`DELETE FROM machine_secrets WHERE machine = $1`, vm.String()); err != nil {
			return err
		}
		t.leave(by)
		t.publish(TopicSettings, vm.String())
		_, err := t.exec(`INSERT INTO results (machine, host, name, report, created, result) SELECT uuid, host, name, '', 0, $2 FROM claims WHERE uuid = $1`,
			vm.String(), []byte{})
		return err
	})
}

// VTPMsOfTenant gives the vTPMs of a tenant's VMs ("" of all) by UUID, up to n after one, and how many there are in all.
func (s *Store) VTPMsOfTenant(ctx context.Context, tenant string, after attest.UUID, n int) ([]VTPM, int, error) {
	if tenant == "" {
		all, err := s.AllVTPMs(ctx, after, n)
		if err != nil {
			return nil, 0, err
		}
		total, err := s.CountVTPMs(ctx)
		return all, total, err
	}
	total := 0
	if err := s.one(ctx, opTimeout, `SELECT COUNT(*) FROM vtpms v JOIN settings t ON t.machine = v.uuid WHERE t.tenant = $1`, []any{tenant}, &total); err != nil {
		return nil, 0, err
	}
	all, err := s.vtpms(ctx, `WHERE uuid > $1 AND uuid IN (SELECT machine FROM settings WHERE tenant = $2) ORDER BY uuid LIMIT $3`, after.String(), tenant, n)
	return all, total, err
}

// Place is where a VM is, with its newest result there.
type Place struct {
	Name     string
	HostName string
	Result   appraise.Result
}

// Places gives where VMs are by their UUIDs; of those on several hosts, where the newest result is.
func (s *Store) Places(ctx context.Context, vms []string) (map[string]Place, error) {
	m := make(map[string]Place, len(vms))
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var row result
		var host string
		if err := r.Scan(append(row.into(), &host)...); err != nil {
			return err
		}
		res, err := row.result()
		m[row.machine] = Place{Name: row.name, HostName: host, Result: res}
		return err
	}, `SELECT `+resultColumns+`, COALESCE(o.name, '') FROM results r LEFT JOIN hosts o ON o.id = r.host WHERE r.machine = ANY($1) ORDER BY r.machine, r.created`, list(vms))
	return m, err
}
