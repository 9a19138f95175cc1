package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"virt-attest/verifier/api"
)

// Names of the policies of machines that were given none.
const (
	DefaultHostPolicy = "default-host"
	DefaultVMPolicy   = "default-vm"
)

// DocRef names a version of a document. Version 0: none is active, or there is none of that name.
type DocRef struct {
	Name    string
	Version int
	SHA256  string
}

// NewVersion is a new version of a document.
type NewVersion struct {
	Kind     api.DocKind
	Name     string
	SHA256   string // of Data, hexadecimal
	Files    int    // of reference values
	Author   string
	Note     string
	Data     []byte
	Created  time.Time
	Activate bool

	// Match is told the SHA-256 of the active version, "" where there is none, while nobody else can change it. Where it says no,
	// nothing is recorded and the error is ErrChanged. Nil: any will do.
	Match func(active string) bool
}

const versionColumns = `v.version, v.sha256, v.size, v.created, v.author, v.note, CASE WHEN d.active = v.version THEN 1 ELSE 0 END, v.activated`

const fromVersions = ` FROM doc_versions v JOIN documents d ON d.kind = v.kind AND d.name = v.name `

func scanVersion(scan func(...any) error, more ...any) (v api.DocVersion, err error) {
	var created, activated int64
	var active int
	err = scan(append([]any{&v.Version, &v.SHA256, &v.Size, &created, &v.Author, &v.Note, &active, &activated}, more...)...)
	v.Created, v.Activated, v.Active = fromMillis(created), fromMillis(activated), active == 1
	return v, err
}

// PutVersion records a version. Where the document has one with the same content, that is the version. Versions count
// from 1 and are never used twice while the document exists.
func (s *Store) PutVersion(ctx context.Context, n NewVersion, by Trail) (*api.DocVersion, error) {
	var v api.DocVersion
	err := s.tx(ctx, bulkTimeout, func(t *tx) error {
		if _, err := t.exec(`INSERT INTO documents (kind, name, active, modified) VALUES ($1, $2, 0, $3) ON CONFLICT (kind, name) DO NOTHING`,
			string(n.Kind), n.Name, millis(n.Created)); err != nil {
			return err
		}
		if err := t.lockDocument(n.Kind, n.Name); err != nil {
			return err
		}
		if err := t.match(n); err != nil {
			return err
		}
		version, err := t.versionWith(n)
		if err != nil {
			return err
		}
		t.leave(by)
		if n.Activate {
			if _, err := t.activate(n.Kind, n.Name, version, n.Created); err != nil {
				return err
			}
		}
		v, err = scanVersion(func(into ...any) error {
			return t.one(`SELECT `+versionColumns+fromVersions+`WHERE v.kind = $1 AND v.name = $2 AND v.version = $3`, []any{string(n.Kind), n.Name, version}, into...)
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &v, nil
}

func (t *tx) lockDocument(k api.DocKind, name string) error {
	var n int
	return t.one(`SELECT 1 FROM documents WHERE kind = $1 AND name = $2 FOR UPDATE`, []any{string(k), name}, &n)
}

func (t *tx) match(n NewVersion) error {
	if n.Match == nil {
		return nil
	}
	var active string
	err := t.one(`SELECT COALESCE((SELECT v.sha256`+fromVersions+`WHERE d.kind = $1 AND d.name = $2 AND v.version = d.active), '')`, []any{string(n.Kind), n.Name}, &active)
	if err == nil && !n.Match(active) {
		return ErrChanged
	}
	return err
}

// versionWith finds or makes the version with a content.
func (t *tx) versionWith(n NewVersion) (version int, err error) {
	err = t.one(`SELECT version FROM doc_versions WHERE kind = $1 AND name = $2 AND sha256 = $3`, []any{string(n.Kind), n.Name, n.SHA256}, &version)
	if !errors.Is(err, sql.ErrNoRows) {
		return version, err
	}
	if err := t.one(`SELECT COALESCE(MAX(version), 0) + 1 FROM doc_versions WHERE kind = $1 AND name = $2`, []any{string(n.Kind), n.Name}, &version); err != nil {
		return 0, err
	}
	if _, err := t.exec(`INSERT INTO doc_versions (kind, name, version, sha256, size, files, author, note, created, activated, data)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10)`, string(n.Kind), n.Name, version, n.SHA256, len(n.Data), n.Files, n.Author, n.Note,
		millis(n.Created), blob(n.Data)); err != nil {
		return 0, err
	}
	_, err = t.exec(`UPDATE documents SET modified = $1 WHERE kind = $2 AND name = $3`, millis(n.Created), string(n.Kind), n.Name)
	return version, err
}

// Activate makes a version the active one. What was appraised by another is outdated from then on. It gives the
// generation that begins, and whether anything is different.
func (s *Store) Activate(ctx context.Context, k api.DocKind, name string, version int, now time.Time, by Trail) (generation int64, err error) {
	err = s.tx(ctx, bulkTimeout, func(t *tx) error {
		if err := t.lockDocument(k, name); err != nil {
			return err
		}
		var n int
		if err := t.one(`SELECT 1 FROM doc_versions WHERE kind = $1 AND name = $2 AND version = $3`, []any{string(k), name, version}, &n); err != nil {
			return err
		}
		t.leave(by)
		generation, err = t.activate(k, name, version, now)
		return err
	})
	return generation, err
}

func (t *tx) activate(k api.DocKind, name string, version int, now time.Time) (int64, error) {
	n, err := t.exec(`UPDATE documents SET active = $1, modified = $2 WHERE kind = $3 AND name = $4 AND active <> $1`, version, millis(now), string(k), name)
	if err != nil {
		return 0, err
	}
	if _, err := t.exec(`UPDATE doc_versions SET activated = $1 WHERE kind = $2 AND name = $3 AND version = $4`, millis(now), string(k), name, version); err != nil {
		return 0, err
	}
	if n == 0 {
		var g int64
		err := t.one(`SELECT value FROM counters WHERE name = 'generation'`, nil, &g)
		return g, err
	}
	t.publish(TopicDocument, string(k)+"/"+name)
	using, args := usersOf(k, name)
	return t.outdate(using, args...)
}

// usersOf gives the condition on `machine` that a machine uses a document, with its arguments from $2 on.
func usersOf(k api.DocKind, name string) (string, []any) {
	switch {
	case k == api.DocRIM:
		return `machine IN (SELECT machine FROM machine_rims WHERE rim = $2)`, []any{name}
	case name == DefaultVMPolicy:
		return `machine LIKE '%-%' AND machine NOT IN (SELECT machine FROM settings WHERE policy <> '' AND policy <> $2)`, []any{name}
	case name == DefaultHostPolicy:
		return `machine NOT LIKE '%-%' AND machine NOT IN (SELECT machine FROM settings WHERE policy <> '' AND policy <> $2)`, []any{name}
	}
	return `machine IN (SELECT machine FROM settings WHERE policy = $2)`, []any{name}
}

// outdate begins a generation and marks the results of machines as outdated: what commits from now on and was appraised
// by what was there before is outdated too.
func (t *tx) outdate(which string, args ...any) (int64, error) {
	g, err := t.next("generation", 1)
	if err != nil {
		return 0, err
	}
	hosts := make(map[string]bool)
	err = t.each(func(r *sql.Rows) error {
		var host string
		err := r.Scan(&host)
		hosts[host] = true
		return err
	}, `UPDATE results SET outdated = $1, behind = 1 WHERE `+which+` RETURNING host`, append([]any{g}, args...)...)
	if len(hosts) > maxHostNotes {
		hosts = map[string]bool{"": true}
	}
	for host := range hosts {
		t.publish(TopicVerdict, host)
	}
	return g, err
}

// Active gives a document's active version with its content; ErrNotFound where there is none.
func (s *Store) Active(ctx context.Context, k api.DocKind, name string) (*api.DocVersion, []byte, error) {
	return s.version(ctx, `WHERE v.kind = $1 AND v.name = $2 AND v.version = d.active`, string(k), name)
}

// Version gives a version with its content; version 0 is the active one.
func (s *Store) Version(ctx context.Context, k api.DocKind, name string, version int) (*api.DocVersion, []byte, error) {
	if version == 0 {
		return s.Active(ctx, k, name)
	}
	return s.version(ctx, `WHERE v.kind = $1 AND v.name = $2 AND v.version = $3`, string(k), name, version)
}

func (s *Store) version(ctx context.Context, where string, args ...any) (*api.DocVersion, []byte, error) {
	var data []byte
	v, err := scanVersion(func(into ...any) error {
		return s.one(ctx, bulkTimeout, `SELECT `+versionColumns+`, v.data`+fromVersions+where, args, into...)
	}, &data)
	if err != nil {
		return nil, nil, err
	}
	return &v, data, nil
}

// Content gives a document's content by its SHA-256, whichever version of whichever name has it.
func (s *Store) Content(ctx context.Context, k api.DocKind, sha256 string) (data []byte, err error) {
	err = s.one(ctx, bulkTimeout, `SELECT data FROM doc_versions WHERE sha256 = $1 AND kind = $2 ORDER BY name, version LIMIT 1`, []any{sha256, string(k)}, &data)
	return data, err
}

// Versions lists a document's versions, newest first; ErrNotFound where there is no such document.
func (s *Store) Versions(ctx context.Context, k api.DocKind, name string) ([]api.DocVersion, error) {
	all, err := listOf(ctx, s, func(r *sql.Rows) (api.DocVersion, error) { return scanVersion(r.Scan) },
		`SELECT `+versionColumns+fromVersions+`WHERE v.kind = $1 AND v.name = $2 ORDER BY v.version DESC`, string(k), name)
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	return all, err
}

// Documents lists the documents of a kind by name. Assigned has up to 100 machines.
func (s *Store) Documents(ctx context.Context, k api.DocKind) ([]api.Document, error) {
	all, err := listOf(ctx, s, func(r *sql.Rows) (d api.Document, err error) {
		var modified int64
		var files int
		err = r.Scan(&d.Name, &d.Active, &modified, &d.SHA256, &files, &d.Versions)
		d.Kind, d.Modified, d.Files, d.Assigned = k, fromMillis(modified), files, []string{}
		return d, err
	}, `SELECT d.name, d.active, d.modified, COALESCE(v.sha256, ''), COALESCE(v.files, 0), (SELECT COUNT(*) FROM doc_versions n WHERE n.kind = d.kind AND n.name = d.name)
		FROM documents d LEFT JOIN doc_versions v ON v.kind = d.kind AND v.name = d.name AND v.version = d.active WHERE d.kind = $1 ORDER BY d.name`, string(k))
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Assigned, err = s.MachinesUsing(ctx, k, all[i].Name, "", maxAssigned); err != nil {
			return nil, err
		}
		if all[i].Machines, err = s.CountUsing(ctx, k, all[i].Name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// MachinesUsing gives up to n machines that use a document, by ID, those after the one given. A machine uses a policy that was
// given to it, or the default one of its kind; there it is on record as attested or said to run.
func (s *Store) MachinesUsing(ctx context.Context, k api.DocKind, name, after string, n int) ([]string, error) {
	from, args := using(k, name)
	args = append(args, after, n)
	all, err := listOf(ctx, s, scanText, `SELECT DISTINCT machine FROM `+from+` AND machine > $2 ORDER BY machine LIMIT $3`, args...)
	if all == nil {
		all = []string{}
	}
	return all, err
}

// CountUsing counts the machines that use a document.
func (s *Store) CountUsing(ctx context.Context, k api.DocKind, name string) (n int, err error) {
	from, args := using(k, name)
	err = s.one(ctx, opTimeout, `SELECT COUNT(DISTINCT machine) FROM `+from, args, &n)
	return n, err
}

func using(k api.DocKind, name string) (string, []any) {
	switch {
	case k == api.DocRIM:
		return `machine_rims WHERE rim = $1`, []any{name}
	case name == DefaultVMPolicy:
		return `results WHERE machine <> host AND machine NOT IN (SELECT machine FROM settings WHERE policy <> '' AND policy <> $1)`, []any{name}
	case name == DefaultHostPolicy:
		return `(SELECT id AS machine FROM hosts) AS machines WHERE machine NOT IN (SELECT machine FROM settings WHERE policy <> '' AND policy <> $1)`, []any{name}
	}
	return `settings WHERE policy = $1`, []any{name}
}

// DeleteDocument removes a document with all its versions; ErrConflict while a machine was given it.
func (s *Store) DeleteDocument(ctx context.Context, k api.DocKind, name string, by Trail) error {
	return s.tx(ctx, bulkTimeout, func(t *tx) error {
		if err := t.lockDocument(k, name); err != nil {
			return err
		}
		var n int
		err := t.one(`SELECT 1 FROM machine_rims WHERE rim = $1 AND $2 = 'rim' UNION SELECT 1 FROM settings WHERE policy = $1 AND $2 = 'policy'`, []any{name, string(k)}, &n)
		if err == nil {
			return ErrConflict
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if using, args := usersOf(k, name); k == api.DocPolicy {
			if _, err := t.outdate(using, args...); err != nil {
				return err
			}
		}
		t.leave(by)
		t.publish(TopicDocument, string(k)+"/"+name)
		for _, q := range []string{`DELETE FROM doc_versions WHERE kind = $1 AND name = $2`, `DELETE FROM documents WHERE kind = $1 AND name = $2`} {
			if _, err := t.exec(q, string(k), name); err != nil {
				return err
			}
		}
		return nil
	})
}

// DocumentsOf gives the documents that a tenant's VMs are appraised by, as kind/name.
func (s *Store) DocumentsOf(ctx context.Context, tenant string) (map[string]bool, error) {
	m := make(map[string]bool)
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		name, err := scanText(r)
		m[name] = true
		return err
	}, `SELECT DISTINCT 'policy/' || CASE WHEN policy = '' THEN $2 ELSE policy END FROM settings WHERE tenant = $1
		UNION SELECT DISTINCT 'rim/' || m.rim FROM machine_rims m JOIN settings t ON t.machine = m.machine WHERE t.tenant = $1`, tenant, DefaultVMPolicy)
	return m, err
}
