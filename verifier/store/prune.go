package store

import (
	"context"
	"database/sql"
	"time"
)

// Prune drops what Retention does not keep: old reports and evidence, logs of boots that nothing
// on record is about, challenges long ended, and what else has had its time. Each of its transactions is short. The audit
// log stays. IMA logs that came in many small pieces are put together.
func (s *Store) Prune(ctx context.Context, keep Retention, now time.Time) error {
	hosts, err := listOf(ctx, s, scanText, `SELECT id FROM hosts ORDER BY id`)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if err := s.pruneHost(ctx, h, keep, now); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		query  string
		before time.Time
	}{
		{`DELETE FROM challenges WHERE nonce IN (SELECT nonce FROM challenges WHERE not_after < $1 AND (done <> 0 OR taken = 0) ORDER BY not_after LIMIT $2)`, now.Add(-keepTaken)},
		{`DELETE FROM activations WHERE nonce IN (SELECT nonce FROM activations WHERE at < $1 LIMIT $2)`, now.Add(-keepTaken)},
		{`DELETE FROM evidence WHERE report IN (SELECT e.report FROM evidence e WHERE e.received < $1
			AND NOT EXISTS (SELECT 1 FROM reports r WHERE r.id = e.report) AND NOT EXISTS (SELECT 1 FROM challenges c WHERE c.nonce = e.report) LIMIT $2)`, now.Add(-keepTaken)},
		{`DELETE FROM repeats WHERE id IN (SELECT id FROM repeats WHERE until < $1 LIMIT $2)`, now.Add(-keepTaken)},
		{`DELETE FROM hellos WHERE client || ' ' || host IN (SELECT client || ' ' || host FROM hellos WHERE until < $1 LIMIT $2)`, now},
		{`DELETE FROM enrol_tokens WHERE id IN (SELECT id FROM enrol_tokens WHERE expires < $1 LIMIT $2)`, now.Add(-keepTokens)},
		{`DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE expires < $1 LIMIT $2)`, now.Add(-keepTokens)},
		{`DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE created < $1 LIMIT $2)`, now.Add(-keepJobs)},
		{`DELETE FROM job_chunks WHERE job IN (SELECT c.job FROM job_chunks c LEFT JOIN jobs j ON j.id = c.job WHERE j.id IS NULL AND c.finished < $1 LIMIT $2)`, now},
		{`DELETE FROM stats WHERE minute * 60000 < $1 AND minute IN (SELECT minute FROM stats ORDER BY minute LIMIT $2)`, now.Add(-keepStats)},
	} {
		if err := s.pruneAll(ctx, p.query, millis(p.before)); err != nil {
			return err
		}
	}
	if keep.Events > 0 {
		for _, q := range []string{`DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < $1 ORDER BY id LIMIT $2)`,
			`DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE closed <> 0 AND closed < $1 LIMIT $2)`} {
			if err := s.pruneAll(ctx, q, millis(now.Add(-keep.Events))); err != nil {
				return err
			}
		}
	}
	if err := s.pruneLogs(ctx); err != nil {
		return err
	}
	return s.mergeLogs(ctx)
}

// pruneAll repeats a statement that deletes a batch until it finds nothing.
func (s *Store) pruneAll(ctx context.Context, query string, before int64) error {
	for {
		var n int64
		err := s.briefTx(ctx, func(t *tx) (err error) {
			n, err = t.exec(query, before, pruneBatch)
			return err
		})
		if err != nil || n < pruneBatch {
			return err
		}
	}
}

// pruneHost drops a host's reports and evidence, but those of the newest results.
func (s *Store) pruneHost(ctx context.Context, host string, keep Retention, now time.Time) error {
	type report struct {
		id       string
		created  int64
		evidence bool
	}
	all, err := listOf(ctx, s, func(r *sql.Rows) (v report, err error) {
		var n int
		err = r.Scan(&v.id, &v.created, &n)
		v.evidence = n == 1
		return v, err
	}, `SELECT r.id, r.created, CASE WHEN e.report IS NULL THEN 0 ELSE 1 END FROM reports r LEFT JOIN evidence e ON e.report = r.id
		WHERE r.host = $1 AND r.id NOT IN (SELECT report FROM results WHERE host = $1)
		ORDER BY r.created DESC, r.id`, host)
	if err != nil {
		return err
	}
	var reports, evidence list
	newest, err := listOf(ctx, s, scanText, `SELECT DISTINCT report FROM results WHERE host = $1 AND report <> ''`, host)
	if err != nil {
		return err
	}
	for i, r := range all {
		rank := i + min(len(newest), 1) // the newest report of the host is among those that stay
		switch {
		case rank >= keep.Reports || r.created < millis(now.Add(-keep.Age)):
			reports = append(reports, r.id)
		case r.evidence && rank >= keep.Evidence:
			evidence = append(evidence, r.id)
		}
	}
	if err := s.pruneList(ctx, evidence, `DELETE FROM evidence WHERE report = ANY($1)`); err != nil {
		return err
	}
	return s.pruneList(ctx, reports, `DELETE FROM evidence WHERE report = ANY($1)`, `DELETE FROM reports WHERE id = ANY($1)`)
}

func (s *Store) pruneList(ctx context.Context, ids list, queries ...string) error {
	for len(ids) > 0 {
		n := min(len(ids), pruneBatch)
		batch := ids[:n]
		err := s.briefTx(ctx, func(t *tx) error {
			for _, q := range queries {
				if _, err := t.exec(q, batch); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// pruneLogs drops logs of boots that neither a machine's record nor evidence on record is about.
func (s *Store) pruneLogs(ctx context.Context) error {
	type boot struct{ machine, id string }
	boots, err := listOf(ctx, s, func(r *sql.Rows) (b boot, err error) {
		err = r.Scan(&b.machine, &b.id)
		return b, err
	}, `SELECT i.machine, i.boot_id FROM (SELECT machine, boot_id FROM ima UNION SELECT machine, boot_id FROM boot_logs) i WHERE NOT EXISTS (SELECT 1 FROM machines m WHERE m.machine = i.machine AND m.boot_id = i.boot_id)`)
	if err != nil {
		return err
	}
	for _, b := range boots {
		needed := false
		err := s.reportsAbout(ctx, b.machine, func(r reportAbout) bool {
			needed = r.Evidence && r.Boot == b.id
			return !needed
		})
		if err != nil {
			return err
		}
		if needed {
			continue
		}
		err = s.briefTx(ctx, func(t *tx) error {
			for _, table := range []string{"ima", "boot_logs"} {
				if _, err := t.exec(`DELETE FROM `+table+` WHERE machine = $1 AND boot_id = $2 AND NOT EXISTS (SELECT 1 FROM machines m WHERE m.machine = $1 AND m.boot_id = $2)`, b.machine, b.id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return s.pruneBootData(ctx)
}
