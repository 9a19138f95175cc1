package store

import (
	"context"
	"database/sql"
	"time"

	"virt-attest/verifier/api"
)

// Seen is a host that a replica heard.
type Seen struct {
	Host     string
	Instance string // of the hostd that is there
	At       time.Time
}

// Presence is where and when a host was heard last.
type Presence struct {
	Replica  string
	Instance string
	Seen     time.Time
}

// PutPresence records the hosts that a replica heard. Of two replicas that heard one host the later counts.
func (s *Store) PutPresence(ctx context.Context, replica string, seen []Seen) error {
	rows := make([][]any, len(seen))
	for i, v := range seen {
		rows[i] = []any{v.Host, replica, v.Instance, millis(v.At)}
	}
	if len(rows) == 0 {
		return nil
	}
	sortRows(rows)
	return s.briefTx(ctx, func(t *tx) error {
		_, err := t.insert(`presence (host, replica, instance, seen)`, `ON CONFLICT (host) DO UPDATE SET replica = excluded.replica, instance = CASE WHEN excluded.instance <> '' THEN excluded.instance ELSE presence.instance END,
			seen = excluded.seen WHERE presence.seen <= excluded.seen`, rows)
		return err
	})
}

// Online gives where hosts were heard last, of those that ever were; no hosts: all.
func (s *Store) Online(ctx context.Context, hosts []string) (map[string]Presence, error) {
	m := make(map[string]Presence)
	query, args := `SELECT host, replica, instance, seen FROM presence`, []any(nil)
	if len(hosts) > 0 {
		query, args = query+` WHERE host = ANY($1)`, []any{list(hosts)}
	}
	err := s.each(ctx, opTimeout, func(r *sql.Rows) error {
		var host string
		var p Presence
		var seen int64
		err := r.Scan(&host, &p.Replica, &p.Instance, &seen)
		p.Seen = fromMillis(seen)
		m[host] = p
		return err
	}, query, args...)
	return m, err
}

// CountOnline counts the hosts that were heard since.
func (s *Store) CountOnline(ctx context.Context, since time.Time) (n int, err error) {
	err = s.one(ctx, opTimeout, `SELECT COUNT(*) FROM presence WHERE seen >= $1`, []any{millis(since)}, &n)
	return n, err
}

// PutReplica records that a replica is alive, and says whether it was on record.
func (s *Store) PutReplica(ctx context.Context, v api.Replica) (known bool, err error) {
	err = s.briefTx(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE replicas SET seen = $1, hosts = $2 WHERE id = $3`, millis(v.LastSeen), v.Hosts, v.ID)
		if known = n > 0; err != nil || known {
			return err
		}
		_, err = t.exec(`INSERT INTO replicas (id, host, version, started, seen, hosts) VALUES ($1, $2, $3, $4, $5, $6)`,
			v.ID, v.Host, v.Version, millis(v.Started), millis(v.LastSeen), v.Hosts)
		return err
	})
	return known, err
}

// Replicas lists the replicas on record, by start.
func (s *Store) Replicas(ctx context.Context) ([]api.Replica, error) {
	return listOf(ctx, s, scanReplica, `SELECT id, host, version, started, seen, hosts FROM replicas ORDER BY started, id`)
}

func scanReplica(r *sql.Rows) (v api.Replica, err error) {
	var started, seen int64
	err = r.Scan(&v.ID, &v.Host, &v.Version, &started, &seen, &v.Hosts)
	v.Started, v.LastSeen = fromMillis(started), fromMillis(seen)
	return v, err
}

// DropReplica forgets a replica that ends, and ends its leases: what it did not finish is free for others.
func (s *Store) DropReplica(ctx context.Context, id string) error {
	return s.briefTx(ctx, func(t *tx) error {
		return t.run(id, `DELETE FROM replicas WHERE id = $1`, `DELETE FROM presence WHERE replica = $1 AND seen = 0`,
			`UPDATE challenges SET lease = 0 WHERE owner = $1 AND done = 0`)
	})
}

// DropReplicas forgets the replicas that were not heard since, ends their leases, and gives them, each to one caller.
func (s *Store) DropReplicas(ctx context.Context, since time.Time) (lost []api.Replica, err error) {
	err = s.briefTx(ctx, func(t *tx) error {
		lost = nil
		if err := t.each(func(r *sql.Rows) error {
			v, err := scanReplica(r)
			lost = append(lost, v)
			return err
		}, `DELETE FROM replicas WHERE seen < $1 RETURNING id, host, version, started, seen, hosts`, millis(since)); err != nil {
			return err
		}
		for _, v := range lost {
			if _, err := t.exec(`UPDATE challenges SET lease = 0 WHERE owner = $1 AND done = 0`, v.ID); err != nil {
				return err
			}
		}
		return nil
	})
	return lost, err
}

// WatchedHost is an approved host with what tells whether it does what it should.
type WatchedHost struct {
	ID, Name string
	Seen     time.Time // heard last
	Answered time.Time // its newest verdict that came of an answer; zero: none
	Lost     bool      // an alert says that it is gone
	Overdue  bool      // an alert says that it does not attest
}

// WatchedHosts lists the approved hosts; lost and overdue are the codes of the alerts.
func (s *Store) WatchedHosts(ctx context.Context, lost, overdue string) ([]WatchedHost, error) {
	return listOf(ctx, s, func(r *sql.Rows) (h WatchedHost, err error) {
		var seen, last, answered int64
		var gone, late int
		err = r.Scan(&h.ID, &h.Name, &last, &seen, &answered, &gone, &late)
		h.Seen, h.Answered, h.Lost, h.Overdue = fromMillis(max(seen, last)), fromMillis(answered), gone > 0, late > 0
		return h, err
	}, `SELECT h.id, h.name, h.last_seen, COALESCE(p.seen, 0), COALESCE(CASE WHEN r.state = 'UNREACHABLE' THEN r.since ELSE r.created END, 0),
			CASE WHEN a.id IS NULL THEN 0 ELSE 1 END, CASE WHEN b.id IS NULL THEN 0 ELSE 1 END
		FROM hosts h LEFT JOIN presence p ON p.host = h.id LEFT JOIN results r ON r.machine = h.id AND r.host = h.id
		LEFT JOIN alerts a ON a.machine = h.id AND a.code = $1 AND a.closed = 0 LEFT JOIN alerts b ON b.machine = h.id AND b.code = $2 AND b.closed = 0
		WHERE h.how <> ''`, lost, overdue)
}
