package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"virt-attest/verifier/api"
)

// Secret is a secret for VMs as it is kept: encrypted.
type Secret struct {
	Tenant, Name string
	Size         int
	KeyID        string
	Data         []byte
	Version      int64 // counts values
}

// PutSecret keeps a secret, in place of its value before.
func (s *Store) PutSecret(ctx context.Context, v Secret, author string, now time.Time, most int, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		var n int
		if err := t.one(`SELECT COUNT(*) FROM secrets WHERE NOT (tenant = $1 AND name = $2)`, []any{v.Tenant, v.Name}, &n); err != nil {
			return err
		}
		if n >= most {
			return ErrFull
		}
		t.leave(by)
		_, err := t.exec(`INSERT INTO secrets (tenant, name, size, key_id, data, version, author, created, modified) VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $7)
			ON CONFLICT (tenant, name) DO UPDATE SET size = excluded.size, key_id = excluded.key_id, data = excluded.data, version = secrets.version + 1,
				author = excluded.author, modified = excluded.modified`, v.Tenant, v.Name, v.Size, v.KeyID, blob(v.Data), author, millis(now))
		if err != nil {
			return err
		}
		t.publish(TopicSettings, "secrets")
		return nil
	})
}

// DeleteSecret forgets a secret.
func (s *Store) DeleteSecret(ctx context.Context, tenant, name string, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		t.publish(TopicSettings, "secrets")
		if _, err := t.exec(`DELETE FROM machine_secrets WHERE tenant = $1 AND name = $2`, tenant, name); err != nil {
			return err
		}
		return t.must(`DELETE FROM secrets WHERE tenant = $1 AND name = $2`, tenant, name)
	})
}

// AssignSecret has a VM get a secret. ErrNotFound: there is none; ErrConflict: it has another one of that name; ErrFull: it has most.
func (s *Store) AssignSecret(ctx context.Context, tenant, name, vm string, most int, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		var n int
		err := t.one(`SELECT 1 FROM secrets WHERE tenant = $1 AND name = $2 FOR NO KEY UPDATE`, []any{tenant, name}, &n)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		if err := t.one(`SELECT COUNT(*) FROM machine_secrets WHERE machine = $1 AND name <> $2`, []any{vm, name}, &n); err != nil {
			return err
		}
		if n >= most {
			return ErrFull
		}
		if _, err := t.exec(`INSERT INTO machine_secrets (machine, name, tenant) VALUES ($1, $2, $3) ON CONFLICT (machine, name) DO NOTHING`, vm, name, tenant); err != nil {
			return err
		}
		var now string
		if err := t.one(`SELECT tenant FROM machine_secrets WHERE machine = $1 AND name = $2`, []any{vm, name}, &now); err != nil {
			return err
		}
		if now != tenant {
			return ErrConflict
		}
		t.leave(by)
		t.publish(TopicSettings, vm)
		return nil
	})
}

// UnassignSecret takes a secret away from a VM.
func (s *Store) UnassignSecret(ctx context.Context, tenant, name, vm string, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		t.publish(TopicSettings, vm)
		return t.must(`DELETE FROM machine_secrets WHERE machine = $1 AND tenant = $2 AND name = $3`, vm, tenant, name)
	})
}

// ListSecrets lists the secrets of a tenant, "" of all, with what they are assigned to.
func (s *Store) ListSecrets(ctx context.Context, tenant string) ([]api.Secret, error) {
	list, err := listOf(ctx, s, func(r *sql.Rows) (v api.Secret, err error) {
		var created, modified int64
		err = r.Scan(&v.Tenant, &v.Name, &v.Size, &v.Author, &created, &modified)
		v.Created, v.Modified, v.VMs = fromMillis(created), fromMillis(modified), []string{}
		return v, err
	}, `SELECT tenant, name, size, author, created, modified FROM secrets WHERE $1 = '' OR tenant = $1 ORDER BY name, tenant`, tenant)
	if err != nil {
		return nil, err
	}
	at := make(map[[2]string]*api.Secret, len(list))
	for i := range list {
		at[[2]string{list[i].Tenant, list[i].Name}] = &list[i]
	}
	return list, s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var vm, name, owner string
		err := r.Scan(&vm, &name, &owner)
		if v := at[[2]string{owner, name}]; v != nil {
			v.VMs = append(v.VMs, vm)
		}
		return err
	}, `SELECT machine, name, tenant FROM machine_secrets WHERE $1 = '' OR tenant = $1 ORDER BY machine`, tenant)
}

// SecretsOf gives the secrets that are assigned to VMs, by VM and name, without their values.
func (s *Store) SecretsOf(ctx context.Context, vms []string) (map[string][]Secret, error) {
	out := make(map[string][]Secret)
	return out, s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var vm string
		var v Secret
		err := r.Scan(&vm, &v.Tenant, &v.Name, &v.Version)
		out[vm] = append(out[vm], v)
		return err
	}, `SELECT m.machine, v.tenant, v.name, v.version FROM machine_secrets m JOIN secrets v ON v.tenant = m.tenant AND v.name = m.name
		WHERE m.machine = ANY($1) ORDER BY m.machine, v.name`, list(vms))
}

// SecretValues gives the secrets that are assigned to a VM, encrypted.
func (s *Store) SecretValues(ctx context.Context, vm string) ([]Secret, error) {
	return listOf(ctx, s, func(r *sql.Rows) (v Secret, err error) {
		err = r.Scan(&v.Tenant, &v.Name, &v.Size, &v.KeyID, &v.Data, &v.Version)
		return v, err
	}, `SELECT v.tenant, v.name, v.size, v.key_id, v.data, v.version FROM machine_secrets m JOIN secrets v ON v.tenant = m.tenant AND v.name = m.name
		WHERE m.machine = $1 ORDER BY v.name`, vm)
}

// Leave records that something was done that changes nothing else here.
func (s *Store) Leave(ctx context.Context, trails ...Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		for _, by := range trails {
			t.leave(by)
		}
		return nil
	})
}
