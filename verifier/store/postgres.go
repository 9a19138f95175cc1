package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// postgresDialect is everything that is PostgreSQL's own.
type postgresDialect struct{}

// channel is what every process on the database listens to.
const channel = "virt_attest"

func (postgresDialect) name() string { return Postgres }

func (postgresDialect) open(ctx context.Context, s *Store, c Config) error {
	conf, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return errors.New("the database URL cannot be read") // err quotes it, with its password
	}
	conf.MaxConns = int32(min(c.Conns, maxConns))
	conf.MaxConnLifetimeJitter = conf.MaxConnLifetime / 10
	if conf.ConnConfig.ConnectTimeout == 0 {
		conf.ConnConfig.ConnectTimeout = opTimeout
	}
	p := conf.ConnConfig.RuntimeParams
	if p["application_name"] == "" {
		p["application_name"] = "virt-attest-verifierd"
	}
	if p["random_page_cost"] == "" {
		p["random_page_cost"] = "1.1" // what is asked for often is in memory or on an SSD: without it, tables without statistics yet are read whole
	}
	p["idle_in_transaction_session_timeout"] = fmt.Sprint(2 * bulkTimeout.Milliseconds()) // of a process that stands still
	if s.pool, err = pgxpool.NewWithConfig(ctx, conf); err != nil {
		return err
	}
	s.url = c.URL
	s.read = stdlib.OpenDBFromPool(s.pool)
	s.write.DB, s.brief.DB = s.read, s.read
	return nil
}

// migrate holds a lock of the session's, so that processes that start together migrate once.
func (postgresDialect) migrate(ctx context.Context, s *Store) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	l, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	p, err := provider(goose.DialectPostgres, s, goose.WithSessionLocker(l))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// tune leaves room in the pages of rows that every attestation writes again, so that the new row stands beside the old and no
// index is touched, and does not try to compress what cannot be.
func (postgresDialect) tune(t *tx) error {
	statements := []string{
		`ALTER TABLE challenges ALTER COLUMN known SET STORAGE EXTERNAL`,
		`ALTER TABLE evidence ALTER COLUMN data SET STORAGE EXTERNAL`,
	}
	for _, table := range []string{"results", "machines", "vtpms", "hosts", "presence", "replicas", "counters", "challenges"} {
		statements = append(statements, `ALTER TABLE `+table+` SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)`)
	}
	var n int
	err := t.one(`SELECT 1 FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)`, nil, &n)
	switch {
	case err == nil:
		statements = append(statements, `ALTER TABLE reports ALTER COLUMN report SET COMPRESSION lz4, ALTER COLUMN about SET COMPRESSION lz4`)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	for _, q := range statements {
		if _, err := t.ExecContext(t.ctx, q); err != nil {
			return err
		}
	}
	return nil
}

func (postgresDialect) text(query string) string { return query }

func (postgresDialect) place(i int) string { return "$" + strconv.Itoa(i) }

func (postgresDialect) arg(v any) any {
	if l, ok := v.(list); ok {
		return []string(l)
	}
	return v
}

// begun: what need not outlive a power cut is not waited for on the disk. It is never visible before what was
// committed earlier, and what is committed later takes it along.
func (postgresDialect) begun(t *tx, brief bool) error {
	if !brief {
		return nil
	}
	_, err := t.ExecContext(t.ctx, `SET LOCAL synchronous_commit = off`)
	return err
}

// insert hands over each column as one array: a statement has one text and few arguments, however many rows there are.
func (postgresDialect) insert(t *tx, head, tail string, rows [][]any) (int64, error) {
	if len(rows) == 1 {
		return t.insertValues(head, tail, rows)
	}
	args := make([]any, len(rows[0]))
	from := make([]string, len(args))
	for i := range args {
		var kind string
		if args[i], kind = column(rows, i); kind == "" {
			return t.insertValues(head, tail, rows)
		}
		from[i] = fmt.Sprintf("$%d::%s[]", i+1, kind)
	}
	return t.exec(`INSERT INTO `+head+` SELECT * FROM unnest(`+strings.Join(from, ", ")+`) `+tail, args...)
}

// column gives a column of rows as an array, with the type of its elements; no type where they are not all of one.
func column(rows [][]any, i int) (array any, kind string) {
	switch rows[0][i].(type) {
	case string:
		return columnOf[string](rows, i, "text")
	case []byte:
		return columnOf[[]byte](rows, i, "bytea")
	case int:
		return columnOf[int](rows, i, "bigint")
	}
	return columnOf[int64](rows, i, "bigint")
}

func columnOf[T any](rows [][]any, i int, kind string) (any, string) {
	all := make([]T, len(rows))
	for n, r := range rows {
		v, ok := r[i].(T)
		if !ok {
			return nil, ""
		}
		all[n] = v
	}
	return all, kind
}

func (postgresDialect) notify(t *tx, n Note) error {
	_, err := t.ExecContext(t.ctx, `SELECT pg_notify($1, $2)`, channel, n.encode())
	return err
}

func (postgresDialect) isConflict(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && len(e.Code) == 5 && e.Code[:2] == "23"
}

// isPassing: deadlocks, and a connection that was found dead before anything was sent on it.
func (postgresDialect) isPassing(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40P01" || e.Code == "40001") || pgconn.SafeToRetry(err)
}

// listen keeps one connection for notifications.
func (d postgresDialect) listen(ctx context.Context, s *Store) {
	s.wg.Go(func() {
		wait := time.Duration(0)
		for {
			began := time.Now()
			err := d.hear(ctx, s)
			if ctx.Err() != nil {
				return
			}
			if time.Since(began) > listenRetry {
				wait = 0
			}
			wait = min(max(2*wait, 100*time.Millisecond), listenRetry)
			s.log.Warn("the connection that hears of changes is lost, trying again", "in", wait.String(), "err", err)
			select {
			case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // spreads replicas, hides nothing
			case <-ctx.Done():
				return
			}
		}
	})
}

// hear listens until the connection breaks or ctx ends.
func (postgresDialect) hear(ctx context.Context, s *Store) error {
	dial, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(dial, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(end)
	}()
	if _, err := conn.Exec(dial, `LISTEN `+channel); err != nil {
		return err
	}
	s.bus.missed()
	for {
		quiet, cancel := context.WithTimeout(ctx, listenPing)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			s.bus.publish(decodeNote(n.Payload))
		case ctx.Err() != nil || quiet.Err() == nil:
			return err
		default:
			ask, cancel := context.WithTimeout(ctx, opTimeout)
			err := conn.Ping(ask)
			cancel()
			if err != nil {
				return err
			}
		}
	}
}

// backup runs pg_dump, whose copy is of one moment while others write. The password is not among its arguments, which every
// user of the machine can read.
func (postgresDialect) backup(ctx context.Context, s *Store, path string) error {
	address, password := withoutPassword(s.url)
	if p := s.pool.Config().ConnConfig.Password; p != "" {
		password = p
	}
	cmd := exec.CommandContext(ctx, "pg_dump", "--format=custom", "--no-owner", "--no-password", "--file="+path, "--dbname="+address)
	if cmd.Env = os.Environ(); password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+password)
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("pg_dump is needed (Debian package postgresql-client): %w", err)
	}
	if err != nil {
		return fmt.Errorf("pg_dump: %w: %s", err, out[:min(len(out), maxOutput)])
	}
	return nil
}

var passwordWord = regexp.MustCompile(`(?i)\bpassword\s*=\s*('(?:[^'\\]|\\.)*'|\S*)`)

// withoutPassword takes the password out of a database's address.
func withoutPassword(address string) (without, password string) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" {
		return passwordWord.ReplaceAllString(address, ""), ""
	}
	password, _ = u.User.Password()
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	if p := q.Get("password"); p != "" {
		password = p
		q.Del("password")
		u.RawQuery = q.Encode()
	}
	return u.String(), password
}
