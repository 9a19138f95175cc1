package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"time"

	"virt-attest/attest"
)

// How a host's endorsement key came to be accepted.
const (
	ByCertificate = "certificate" // its certificate chains to a configured root
	ByOperator    = "operator"
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
// said before. An approval on record stays; h.How is used where there is none. A host
// keeps the client name it had first: another is ErrConflict, as is a client name that is another
// host's. Results of VMs that left are dropped, and their vTPMs are free to appear elsewhere.
func (s *Store) PutHost(ctx context.Context, h *Host, vms []Claim) error {
	software, err := json.Marshal(h.Software)
	if err != nil {
		return err
	}
	return s.tx(ctx, opTimeout, func(t *tx) error {
		n, err := t.exec(`INSERT INTO hosts (id, name, client, ek, ek_cert, ak, ak_name, how, software, first_seen, last_seen)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, ek_cert = excluded.ek_cert, ak = excluded.ak,
				ak_name = excluded.ak_name, software = excluded.software, last_seen = excluded.last_seen,
				client = excluded.client, how = CASE WHEN hosts.how <> '' THEN hosts.how ELSE excluded.how END
			WHERE hosts.client = excluded.client OR hosts.client = ''`,
			h.ID, h.Name, h.Client, blob(h.EK), blob(h.EKCert), blob(h.AK), h.AKName.String(), h.How, string(software), millis(h.LastSeen))
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrConflict
		}
		return t.setClaims(h.ID, vms)
	})
}

func (t *tx) setClaims(host string, vms []Claim) error {
	if _, err := t.exec(`DELETE FROM claims WHERE host = $1`, host); err != nil {
		return err
	}
	for _, c := range vms {
		if _, err := t.exec(`INSERT INTO claims (uuid, host, name) VALUES ($1, $2, $3)`, c.UUID.String(), host, c.Name); err != nil {
			return err
		}
	}
	return t.run(host,
		`DELETE FROM results WHERE host = $1 AND machine <> host AND machine NOT IN (SELECT uuid FROM claims WHERE host = $1)`,
		`UPDATE vtpms SET host = '' WHERE host = $1 AND uuid NOT IN (SELECT uuid FROM claims WHERE host = $1)`)
}

// ApproveHost accepts a host's endorsement key.
func (s *Store) ApproveHost(ctx context.Context, id, how string) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		n, err := t.exec(`UPDATE hosts SET how = $1 WHERE id = $2`, how, id)
		if err == nil && n == 0 {
			return ErrNotFound
		}
		return err
	})
}

// DeleteHost forgets a host, its results and its place in the records of vTPMs. The vTPMs
// themselves stay known: they may go on elsewhere, with the same keys only.
func (s *Store) DeleteHost(ctx context.Context, id string) error {
	return s.tx(ctx, opTimeout, func(t *tx) error {
		n, err := t.exec(`DELETE FROM hosts WHERE id = $1`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		return t.run(id, `DELETE FROM claims WHERE host = $1`, `DELETE FROM results WHERE host = $1`,
			`DELETE FROM reports WHERE host = $1`, `DELETE FROM challenges WHERE host = $1`, `DELETE FROM machines WHERE machine = $1`,
			`DELETE FROM ima WHERE machine = $1`, `UPDATE vtpms SET host = '' WHERE host = $1`)
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

func (s *Store) hosts(ctx context.Context, where string, args ...any) ([]Host, error) {
	return listOf(ctx, s.read, scanHost, hostColumns+where, args...)
}

func scanHost(r *sql.Rows) (Host, error) {
	var h Host
	var name, software string
	var first, last int64
	err := r.Scan(&h.ID, &h.Name, &h.Client, &h.EK, &h.EKCert, &h.AK, &name, &h.How, &software, &first, &last)
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
	return listOf(ctx, s.read, func(r *sql.Rows) (c Claim, err error) {
		var uuid string
		if err := r.Scan(&uuid, &c.Host, &c.Name); err != nil {
			return c, err
		}
		c.UUID, err = attest.ParseUUID(uuid)
		return c, err
	}, `SELECT uuid, host, name FROM claims WHERE host = $1 OR $1 = '' ORDER BY uuid, host`, host)
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
