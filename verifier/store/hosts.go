package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// How a host's endorsement key came to be accepted.
const (
	ByCertificate = "certificate" // its certificate chains to a configured root
	ByOperator    = "operator"
	ByToken       = "token" // a one-time enrolment token
)

// Host is a host whose AK was proven to live beside its EK.
type Host struct {
	ID        string
	Name      string
	Client    string // common name of its client certificate; "" on a unix socket
	EK        []byte // TPMT_PUBLIC
	EKCert    []byte
	AK        []byte // TPMT_PUBLIC
	AKName    attest.Name
	How       string // ByCertificate, ByOperator, or "" while nobody approved
	Software  []attest.Software
	FirstSeen time.Time
	LastSeen  time.Time
}

// Approved reports whether the host's endorsement key is accepted.
func (h *Host) Approved() bool { return h.How != "" }

// Claim is a VM that a host says it runs.
type Claim struct {
	UUID attest.UUID
	Host string
	Name string
}

// PutHost records a host that introduced itself, with the VMs it says it runs in place of those it
// said before. An approval on record stays; h.How is used where there is none, and where that is empty too, an
// enrolment token whose SHA-256 is token, which is used up then. A host
// keeps the client name it had first: another is ErrConflict, as is a client name that is another
// host's. Results of VMs that left are dropped, and their vTPMs are free to appear elsewhere. Events tell what is new.
func (s *Store) PutHost(ctx context.Context, h *Host, vms []Claim, token string) error {
	software, err := json.Marshal(h.Software)
	if err != nil {
		return err
	}
	return s.tx(ctx, opTimeout, func(t *tx) error {
		var how string
		err := t.one(`SELECT how FROM hosts WHERE id = $1 FOR NO KEY UPDATE`, []any{h.ID}, &how)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		fresh := err != nil
		if how == "" {
			if how = h.How; how == "" && token != "" {
				if how, err = t.useToken(token, h); err != nil {
					return err
				}
			}
		}
		n, err := t.exec(`INSERT INTO hosts (id, name, client, ek, ek_cert, ak, ak_name, how, software, first_seen, last_seen)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, ek_cert = excluded.ek_cert, ak = excluded.ak,
				ak_name = excluded.ak_name, software = excluded.software, last_seen = excluded.last_seen,
				client = excluded.client, how = CASE WHEN hosts.how <> '' THEN hosts.how ELSE excluded.how END
			WHERE hosts.client = excluded.client OR hosts.client = ''`,
			h.ID, h.Name, h.Client, blob(h.EK), blob(h.EKCert), blob(h.AK), h.AKName.String(), how, string(software), millis(h.LastSeen))
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrConflict
		}
		if fresh {
			t.hostEvent(h, how)
		}
		t.publish(TopicHost, h.ID)
		return t.setClaims(h, vms)
	})
}

func (t *tx) hostEvent(h *Host, how string) {
	e := api.Event{Time: h.LastSeen, Kind: api.EventHost, Machine: h.ID, Name: h.Name, Host: h.ID, Text: "host " + h.Name + " was enrolled, and waits for approval"}
	if how != "" {
		e.Text = "host " + h.Name + " was enrolled, and is approved by " + how
	}
	t.events = append(t.events, e)
}

// useToken uses an enrolment token up for a host, and gives how the host is approved then.
func (t *tx) useToken(token string, h *Host) (string, error) {
	n, err := t.exec(`UPDATE enrol_tokens SET used_by = $1 WHERE secret = $2 AND used_by = '' AND expires > $3 AND (name = '' OR name = $4)`,
		h.ID, token, millis(h.LastSeen), h.Name)
	if err != nil || n == 0 {
		return "", err
	}
	return ByToken, nil
}

// setClaims writes what is different from the claims on record.
func (t *tx) setClaims(h *Host, vms []Claim) error {
	names := make(map[string]string, len(vms))
	for _, c := range vms {
		names[c.UUID.String()] = c.Name
	}
	var gone list
	var renamed [][]any
	before := make(map[string]string)
	if err := t.each(func(r *sql.Rows) error {
		var uuid, name string
		err := r.Scan(&uuid, &name)
		before[uuid] = name
		return err
	}, `SELECT uuid, name FROM claims WHERE host = $1`, h.ID); err != nil {
		return err
	}
	for uuid, name := range before {
		if now, ok := names[uuid]; !ok {
			gone = append(gone, uuid)
			t.vmEvent(h, uuid, name, "left")
		} else if now != name {
			renamed = append(renamed, []any{uuid, h.ID, now})
		}
	}
	for uuid, name := range names {
		if _, ok := before[uuid]; !ok {
			renamed = append(renamed, []any{uuid, h.ID, name})
			t.vmEvent(h, uuid, name, "appeared on")
		}
	}
	if err := t.claim(renamed); err != nil {
		return err
	}
	return t.unclaim(h.ID, gone)
}

func (t *tx) vmEvent(h *Host, uuid, name, did string) {
	t.events = append(t.events, api.Event{Time: h.LastSeen, Kind: api.EventVM, Machine: uuid, Name: name, Host: h.ID,
		Text: fmt.Sprintf("%s %s host %s", title(uuid, name), did, h.Name)})
}

// claim records VMs of a host: UUID, host, name.
func (t *tx) claim(vms [][]any) error {
	if len(vms) == 0 {
		return nil
	}
	sortRows(vms)
	ids := make(list, len(vms))
	for i, v := range vms {
		ids[i] = v[0].(string)
	}
	tenants, err := t.tenants(ids)
	if err != nil {
		return err
	}
	for i := range t.events {
		if e := &t.events[i]; e.Tenant == "" {
			e.Tenant = tenants[e.Machine]
		}
	}
	if _, err := t.insert(`claims (uuid, host, name)`, `ON CONFLICT (uuid, host) DO UPDATE SET name = excluded.name`, vms); err != nil {
		return err
	}
	rows := make([][]any, len(vms))
	for i, v := range vms {
		rows[i] = []any{v[0], v[1], v[2], tenants[ids[i]], "", 0, []byte{}}
	}
	_, err = t.insert(`results (machine, host, name, tenant, report, created, result)`, `ON CONFLICT (machine, host) DO UPDATE SET name = excluded.name`, rows)
	return err
}

// unclaim drops VMs that left a host.
func (t *tx) unclaim(host string, vms list) error {
	if len(vms) == 0 {
		return nil
	}
	tenants, err := t.tenants(vms)
	if err != nil {
		return err
	}
	for i := range t.events {
		if e := &t.events[i]; e.Tenant == "" {
			e.Tenant = tenants[e.Machine]
		}
	}
	for _, q := range []string{`DELETE FROM claims WHERE host = $1 AND uuid = ANY($2)`, `DELETE FROM results WHERE host = $1 AND machine = ANY($2)`,
		`UPDATE vtpms SET host = '' WHERE host = $1 AND uuid = ANY($2)`} {
		if _, err := t.exec(q, host, vms); err != nil {
			return err
		}
	}
	return nil
}

// ApproveHost accepts a host's endorsement key.
func (s *Store) ApproveHost(ctx context.Context, id, how string, by Trail) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		t.leave(by)
		t.publish(TopicHost, id)
		return t.must(`UPDATE hosts SET how = $1 WHERE id = $2`, how, id)
	})
}

// DeleteHost forgets a host, its results and its place in the records of vTPMs. The vTPMs
// themselves stay known: they may go on elsewhere, with the same keys only.
func (s *Store) DeleteHost(ctx context.Context, id string, by Trail) error {
	return s.tx(ctx, bulkTimeout, func(t *tx) error {
		if err := t.must(`DELETE FROM hosts WHERE id = $1`, id); err != nil {
			return err
		}
		t.leave(by)
		t.publish(TopicHost, id)
		return t.run(id, `DELETE FROM evidence WHERE report IN (SELECT id FROM reports WHERE host = $1)`, `DELETE FROM evidence WHERE report IN (SELECT nonce FROM challenges WHERE host = $1)`,
			`DELETE FROM claims WHERE host = $1`, `DELETE FROM results WHERE host = $1`, `DELETE FROM alerts WHERE host = $1`,
			`DELETE FROM reports WHERE host = $1`, `DELETE FROM challenges WHERE host = $1`, `DELETE FROM machines WHERE machine = $1`,
			`DELETE FROM settings WHERE machine = $1`, `DELETE FROM suspensions WHERE machine = $1`, `DELETE FROM machine_rims WHERE machine = $1`, `DELETE FROM presence WHERE host = $1`,
			`DELETE FROM ima WHERE machine = $1`, `DELETE FROM boot_logs WHERE machine = $1`, `UPDATE vtpms SET host = '' WHERE host = $1`)
	})
}

const hostColumns = `SELECT id, name, client, ek, ek_cert, ak, ak_name, how, software, first_seen, last_seen FROM hosts `

// Host finds a host by its ID.
func (s *Store) Host(ctx context.Context, id string) (*Host, error) {
	list, err := s.hosts(ctx, `WHERE id = $1`, id)
	if err != nil || len(list) == 0 {
		return nil, either(err, ErrNotFound)
	}
	return &list[0], nil
}

// HostOfClient finds the host that the client certificate with this common name belongs to.
func (s *Store) HostOfClient(ctx context.Context, client string) (*Host, error) {
	list, err := s.hosts(ctx, `WHERE client = $1 AND client <> ''`, client)
	if err != nil || len(list) == 0 {
		return nil, either(err, ErrNotFound)
	}
	return &list[0], nil
}

// Hosts lists all hosts by name.
func (s *Store) Hosts(ctx context.Context) ([]Host, error) { return s.hosts(ctx, `ORDER BY name, id`) }

// HostsNamed finds the hosts that have a name or an ID.
func (s *Store) HostsNamed(ctx context.Context, name string) ([]Host, error) {
	return s.hosts(ctx, `WHERE id = $1 OR name = $1 ORDER BY id`, name)
}

// CountUnapproved counts the hosts that nobody approved yet.
func (s *Store) CountUnapproved(ctx context.Context) (n int, err error) {
	err = s.one(ctx, opTimeout, `SELECT COUNT(*) FROM hosts WHERE how = ''`, nil, &n)
	return n, err
}

func (s *Store) hosts(ctx context.Context, where string, args ...any) ([]Host, error) {
	return listOf(ctx, s, scanHost, hostColumns+where, args...)
}

func scanHost(r *sql.Rows) (Host, error) { return scanHostInto(r) }

// scanHostInto reads a host and what stands after it in a row.
func scanHostInto(r *sql.Rows, more ...any) (Host, error) {
	var h Host
	var name, software string
	var first, last int64
	err := r.Scan(append([]any{&h.ID, &h.Name, &h.Client, &h.EK, &h.EKCert, &h.AK, &name, &h.How, &software, &first, &last}, more...)...)
	if err != nil {
		return h, err
	}
	h.FirstSeen, h.LastSeen = fromMillis(first), fromMillis(last)
	if h.AKName, err = hex.DecodeString(name); err != nil {
		return h, err
	}
	err = json.Unmarshal([]byte(software), &h.Software)
	return h, err
}

// Claims lists what hosts say they run: all of it, or what is said about one host ("" for all).
func (s *Store) Claims(ctx context.Context, host string) ([]Claim, error) {
	return listOf(ctx, s, scanClaim, `SELECT uuid, host, name FROM claims WHERE host = $1 OR $1 = '' ORDER BY uuid, host`, host)
}

func scanClaim(r *sql.Rows) (c Claim, err error) {
	var uuid string
	if err := r.Scan(&uuid, &c.Host, &c.Name); err != nil {
		return c, err
	}
	c.UUID, err = attest.ParseUUID(uuid)
	return c, err
}

// blob keeps an absent byte string out of NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func either(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// SameNames gives those of the hosts' names that other hosts have too.
func (s *Store) SameNames(ctx context.Context, hosts []string) (map[string]bool, error) {
	m := make(map[string]bool)
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		name, err := scanText(r)
		m[name] = true
		return err
	}, `SELECT DISTINCT h.name FROM hosts h JOIN hosts o ON o.name = h.name AND o.id <> h.id WHERE h.id = ANY($1)`, list(hosts))
	return m, err
}

// HostsClaiming finds the hosts that say they run a VM of that name or UUID.
func (s *Store) HostsClaiming(ctx context.Context, vm string) ([]Host, error) {
	return s.hosts(ctx, `WHERE id IN (SELECT host FROM claims WHERE uuid = $1 UNION SELECT host FROM claims WHERE name = $1) ORDER BY name, id`, vm)
}
