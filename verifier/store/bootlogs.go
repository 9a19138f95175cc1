package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"maps"
	"slices"

	"virt-attest/attest"
)

// BootLog is the TCG event log of a boot, as it came.
type BootLog struct {
	BootID string
	Data   []byte
}

// putBootLogs records the boot logs of advances. Machines that boot alike share one copy.
func (t *tx) putBootLogs(all []Advance) error {
	data := make(map[string][]byte)
	var rows [][]any
	for _, a := range all {
		if a.Boot == nil || len(a.Boot.Data) == 0 {
			continue
		}
		h := sha256.Sum256(a.Boot.Data)
		sum := hex.EncodeToString(h[:])
		data[sum] = a.Boot.Data
		rows = append(rows, []any{a.ID, a.Boot.BootID, sum})
	}
	if len(rows) == 0 {
		return nil
	}
	if err := t.putBootData(data); err != nil {
		return err
	}
	sortRows(rows)
	_, err := t.insert(`boot_logs (machine, boot_id, sha256)`, `ON CONFLICT (machine, boot_id) DO UPDATE SET sha256 = excluded.sha256
		WHERE boot_logs.sha256 <> excluded.sha256`, rows)
	return err
}

// putBootData records logs, by SHA-256, that are not on record.
func (t *tx) putBootData(data map[string][]byte) error {
	sums := slices.Sorted(maps.Keys(data))
	err := t.each(func(r *sql.Rows) error {
		sum, err := scanText(r)
		delete(data, sum)
		return err
	}, `SELECT sha256 FROM boot_data WHERE sha256 = ANY($1)`, list(sums))
	if err != nil {
		return err
	}
	var rows [][]any
	for _, sum := range sums {
		if b, ok := data[sum]; ok {
			rows = append(rows, []any{sum, b})
		}
	}
	_, err = t.insert(`boot_data (sha256, data)`, `ON CONFLICT (sha256) DO NOTHING`, rows)
	return err
}

// BootLogs gives the boot logs of machines' boots, by machine. Those that are not kept are left out, and those that
// would make more than limit bytes. Machines that boot alike share one copy.
func (s *Store) BootLogs(ctx context.Context, boots map[string]string, limit int) (map[string][]byte, error) {
	of := make(map[string][]string) // machines by SHA-256
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var machine, boot, sum string
		err := r.Scan(&machine, &boot, &sum)
		if boots[machine] == boot {
			of[sum] = append(of[sum], machine)
		}
		return err
	}, `SELECT machine, boot_id, sha256 FROM boot_logs WHERE machine = ANY($1)`, list(slices.Sorted(maps.Keys(boots))))
	out := make(map[string][]byte, len(boots))
	if err != nil || len(of) == 0 {
		return out, err
	}
	err = s.each(ctx, bulkTimeout, func(r *sql.Rows) error {
		var sum string
		var b []byte
		if err := r.Scan(&sum, &b); err != nil {
			return err
		}
		if limit -= len(b); limit < 0 {
			return nil
		}
		for _, m := range of[sum] {
			out[m] = b
		}
		return nil
	}, `SELECT sha256, data FROM boot_data WHERE sha256 = ANY($1)`, list(slices.Sorted(maps.Keys(of))))
	return out, err
}

// BootLog gives the log of one boot of a machine; ErrNotFound where it is not kept.
func (s *Store) BootLog(ctx context.Context, machine, bootID string) ([]byte, error) {
	all, err := s.BootLogs(ctx, map[string]string{machine: bootID}, attest.MaxBootLog)
	if err == nil && all[machine] == nil {
		err = ErrNotFound
	}
	return all[machine], err
}

// pruneBootData drops logs that no boot on record has. One that comes back at this moment stays.
func (s *Store) pruneBootData(ctx context.Context) error {
	for {
		var n int64
		err := s.briefTx(ctx, func(t *tx) (err error) {
			n, err = t.exec(`DELETE FROM boot_data WHERE sha256 IN (SELECT d.sha256 FROM boot_data d
				WHERE NOT EXISTS (SELECT 1 FROM boot_logs b WHERE b.sha256 = d.sha256) LIMIT $1)`, pruneBatch)
			return err
		})
		switch {
		case errors.Is(err, ErrConflict):
			return nil
		case err != nil || n < pruneBatch:
			return err
		}
	}
}
