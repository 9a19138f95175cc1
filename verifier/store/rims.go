package store

import (
	"context"
	"database/sql"
	"time"
)

// RIM is a reference value file.
type RIM struct {
	Name     string
	SHA256   string // of Data, in hexadecimal
	Files    int
	Modified time.Time
	Data     []byte   // nil in lists
	Assigned []string // machine ids; in lists only
}

// PutRIM stores reference values, in place of earlier ones of that name.
func (s *Store) PutRIM(ctx context.Context, r *RIM) error {
	return s.tx(ctx, bulkTimeout, func(t *tx) error {
		_, err := t.exec(`INSERT INTO rims (name, sha256, files, modified, data) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, files = excluded.files, modified = excluded.modified, data = excluded.data`,
			r.Name, r.SHA256, r.Files, millis(r.Modified), blob(r.Data))
		return err
	})
}

// RIM gives reference values by name.
func (s *Store) RIM(ctx context.Context, name string) (*RIM, error) {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	r := RIM{Name: name}
	var modified int64
	err := s.read.QueryRowContext(ctx, `SELECT sha256, files, modified, data FROM rims WHERE name = $1`, name).
		Scan(&r.SHA256, &r.Files, &modified, &r.Data)
	r.Modified = fromMillis(modified)
	return &r, wrap(err)
}

// RIMs lists the reference values with the machines that they are assigned to.
func (s *Store) RIMs(ctx context.Context) ([]RIM, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var list []RIM
	err := rows(ctx, s.read, func(r *sql.Rows) error {
		var v RIM
		var modified int64
		var machine sql.NullString
		if err := r.Scan(&v.Name, &v.SHA256, &v.Files, &modified, &machine); err != nil {
			return err
		}
		if n := len(list); n == 0 || list[n-1].Name != v.Name {
			v.Modified = fromMillis(modified)
			list = append(list, v)
		}
		if machine.Valid {
			list[len(list)-1].Assigned = append(list[len(list)-1].Assigned, machine.String)
		}
		return nil
	}, `SELECT r.name, r.sha256, r.files, r.modified, a.machine FROM rims r LEFT JOIN assignments a ON a.rim = r.name ORDER BY r.name, a.machine`)
	return list, err
}

// DeleteRIM removes reference values; ErrConflict while they are assigned.
func (s *Store) DeleteRIM(ctx context.Context, name string) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		n, err := t.exec(`DELETE FROM rims WHERE name = $1`, name)
		if err == nil && n == 0 {
			return ErrNotFound
		}
		return err
	})
}

// Assign gives a machine its reference values, in place of those it had; ErrConflict if one
// of them is not on record.
func (s *Store) Assign(ctx context.Context, machine string, rims []string) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		if _, err := t.exec(`DELETE FROM assignments WHERE machine = $1`, machine); err != nil {
			return err
		}
		for _, r := range rims {
			if _, err := t.exec(`INSERT INTO assignments (machine, rim) VALUES ($1, $2) ON CONFLICT DO NOTHING`, machine, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// Assigned gives the names and SHA-256 of a machine's reference values, sorted by name.
func (s *Store) Assigned(ctx context.Context, machine string) ([]RIM, error) {
	return listOf(ctx, s.read, func(r *sql.Rows) (v RIM, err error) {
		err = r.Scan(&v.Name, &v.SHA256)
		return v, err
	}, `SELECT r.name, r.sha256 FROM rims r JOIN assignments a ON a.rim = r.name WHERE a.machine = $1 ORDER BY r.name`, machine)
}
