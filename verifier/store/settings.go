package store

import (
	"context"
	"database/sql"
	"slices"

	"virt-attest/verifier/api"
)

// SubjectConfig is what a machine is appraised by.
type SubjectConfig struct {
	Policy DocRef   // its name is the default one's where none was given
	RIMs   []DocRef // by name
	Tenant string
}

// Subjects gives what machines are appraised by now. A result appraised by it carries the generation, which was
// read first: a change made meanwhile makes the result outdated.
func (s *Store) Subjects(ctx context.Context, machines []string) (map[string]SubjectConfig, int64, error) {
	var generation int64
	if err := s.one(ctx, opTimeout, `SELECT value FROM counters WHERE name = 'generation'`, nil, &generation); err != nil {
		return nil, 0, err
	}
	policies, err := s.policies(ctx)
	if err != nil {
		return nil, 0, err
	}
	out := make(map[string]SubjectConfig, len(machines))
	for _, m := range machines {
		out[m] = SubjectConfig{Policy: policies.ref(m, "")}
	}
	err = s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var m, kind, name, tenant string
		if err := r.Scan(&m, &kind, &name, &tenant); err != nil {
			return err
		}
		c := out[m]
		if kind == "rim" {
			c.RIMs = append(c.RIMs, DocRef{Name: name})
		} else {
			c.Policy, c.Tenant = policies.ref(m, name), tenant
		}
		out[m] = c
		return nil
	}, `SELECT machine, 'rim', rim, '' FROM machine_rims WHERE machine = ANY($1)
		UNION ALL SELECT machine, 'settings', policy, tenant FROM settings WHERE machine = ANY($1) ORDER BY 1, 3`, list(machines))
	if err != nil {
		return nil, 0, err
	}
	return out, generation, s.resolveRIMs(ctx, out)
}

// resolveRIMs completes the machines' reference values with the version that is active. They are looked up apart from the
// machines, because many machines share few.
func (s *Store) resolveRIMs(ctx context.Context, all map[string]SubjectConfig) error {
	var names list
	for _, c := range all {
		for _, r := range c.RIMs {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return nil
	}
	refs := make(docRefs)
	if err := s.each(ctx, opTimeout, refs.scan, `SELECT v.name, v.version, v.sha256 FROM documents d JOIN doc_versions v ON v.kind = d.kind AND v.name = d.name
		AND v.version = d.active WHERE d.kind = 'rim' AND d.name = ANY($1)`, names); err != nil {
		return err
	}
	for _, c := range all {
		for i, r := range c.RIMs {
			if ref, ok := refs[r.Name]; ok {
				c.RIMs[i] = ref
			}
		}
	}
	return nil
}

// docRefs are active versions by their documents' names.
type docRefs map[string]DocRef

func (d docRefs) scan(r *sql.Rows) error {
	var ref DocRef
	err := r.Scan(&ref.Name, &ref.Version, &ref.SHA256)
	d[ref.Name] = ref
	return err
}

func (s *Store) policies(ctx context.Context) (docRefs, error) {
	refs := make(docRefs)
	return refs, s.each(ctx, opTimeout, refs.scan, `SELECT v.name, v.version, v.sha256 FROM documents d JOIN doc_versions v ON v.kind = d.kind AND v.name = d.name
		AND v.version = d.active WHERE d.kind = 'policy'`)
}

// ref gives the policy of a machine for which an operator named one, or "".
func (d docRefs) ref(machine, policy string) DocRef {
	if policy == "" {
		if policy = DefaultHostPolicy; isVM(machine) {
			policy = DefaultVMPolicy
		}
	}
	if r, ok := d[policy]; ok {
		return r
	}
	return DocRef{Name: policy}
}

// Settings gives what operators have said about a machine; what they have not said is as it is then.
func (s *Store) Settings(ctx context.Context, machine string) (api.Settings, error) {
	all, _, err := s.Subjects(ctx, []string{machine})
	c := all[machine]
	v := api.Settings{Policy: c.Policy.Name, RIMs: []string{}, Tenant: c.Tenant}
	for _, r := range c.RIMs {
		v.RIMs = append(v.RIMs, r.Name)
	}
	return v, err
}

// PutSettings puts settings in place of those that a machine had. Its results are outdated from then on, where it is appraised by
// something else. The error is ErrConflict where reference values or the policy are not on record.
func (s *Store) PutSettings(ctx context.Context, machine string, v api.Settings, by Trail) error {
	return s.putSettings(ctx, machine, nil, v, by)
}

// ReplaceSettings is PutSettings where the machine still has the settings was; the error is ErrChanged where it has others.
func (s *Store) ReplaceSettings(ctx context.Context, machine string, was, v api.Settings, by Trail) error {
	return s.putSettings(ctx, machine, &was, v, by)
}

func (s *Store) putSettings(ctx context.Context, machine string, was *api.Settings, v api.Settings, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		v := plain(machine, v)
		policy, rims := v.Policy, v.RIMs
		if err := t.known(policy, rims); err != nil {
			return err
		}
		now, err := t.lockSettings(machine)
		if err != nil {
			return err
		}
		changed := now.Policy != policy || !slices.Equal(now.RIMs, rims)
		if was != nil {
			if w := plain(machine, *was); w.Policy != now.Policy || w.Tenant != now.Tenant || !slices.Equal(w.RIMs, now.RIMs) {
				return ErrChanged
			}
		}
		if _, err := t.exec(`INSERT INTO settings (machine, policy, tenant) VALUES ($1, $2, $3)
			ON CONFLICT (machine) DO UPDATE SET policy = excluded.policy, tenant = excluded.tenant`, machine, policy, v.Tenant); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM machine_rims WHERE machine = $1`, machine); err != nil {
			return err
		}
		rows := make([][]any, len(rims))
		for i, r := range rims {
			rows[i] = []any{machine, r}
		}
		if _, err := t.insert(`machine_rims (machine, rim)`, ``, rows); err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE results SET tenant = $1 WHERE machine = $2 AND tenant <> $1`, v.Tenant, machine); err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE alerts SET tenant = $1 WHERE machine = $2 AND closed = 0 AND tenant <> $1`, v.Tenant, machine); err != nil {
			return err
		}
		t.leave(by)
		t.publish(TopicSettings, machine)
		if !changed {
			return nil
		}
		_, err = t.outdate(`machine = $2`, machine)
		return err
	})
}

// known holds names to what is on record, and keeps that there until the transaction ends.
func (t *tx) known(policy string, rims []string) error {
	names := list{}
	for _, r := range rims {
		names = append(names, "rim "+r)
	}
	if policy != "" {
		names = append(names, "policy "+policy)
	}
	n := 0
	err := t.each(func(*sql.Rows) error { n++; return nil },
		`SELECT name FROM documents WHERE kind || ' ' || name = ANY($1) FOR NO KEY UPDATE`, names)
	if err == nil && n != len(names) {
		return ErrConflict
	}
	return err
}

// plain gives settings as they are on record: without the default policy's name, reference values once and in order.
func plain(machine string, v api.Settings) api.Settings {
	if v.Policy == (docRefs{}).ref(machine, "").Name {
		v.Policy = ""
	}
	v.RIMs = slices.Compact(slices.Sorted(slices.Values(v.RIMs)))
	return v
}

// lockSettings gives a machine's settings as plain does. Nobody else changes them until the transaction ends.
func (t *tx) lockSettings(machine string) (v api.Settings, err error) {
	if err := t.one(`INSERT INTO settings (machine, policy, tenant) VALUES ($1, '', '') ON CONFLICT (machine) DO UPDATE SET policy = settings.policy
		RETURNING policy, tenant`, []any{machine}, &v.Policy, &v.Tenant); err != nil {
		return v, err
	}
	err = t.each(func(r *sql.Rows) error {
		name, err := scanText(r)
		v.RIMs = append(v.RIMs, name)
		return err
	}, `SELECT rim FROM machine_rims WHERE machine = $1`, machine)
	return plain(machine, v), err
}

// TenantsOf gives the tenants of machines that have one.
func (s *Store) TenantsOf(ctx context.Context, machines []string) (map[string]string, error) {
	m := make(map[string]string)
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var id, tenant string
		err := r.Scan(&id, &tenant)
		m[id] = tenant
		return err
	}, `SELECT machine, tenant FROM settings WHERE machine = ANY($1) AND tenant <> ''`, list(machines))
	return m, err
}
