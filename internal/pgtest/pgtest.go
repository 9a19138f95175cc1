package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	bin        = "/usr/lib/postgresql/15/bin"
	superuser  = "attest"
	startTries = 5                // ports that are tried
	startTime  = 60 * time.Second // to make a cluster or to start it
	stopTime   = 30 * time.Second
	maxWords   = 4 << 10 // bytes of the server's log in an error
)

// shared is the cluster of the test binary: tests of one binary have nothing else in common that could own it.
var shared = sync.OnceValues(func() (*Cluster, error) { return start(context.Background()) })

// URL gives the address of an empty database that goes when the test ends.
func URL(t testing.TB) string {
	t.Helper()
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return c.URL(t)
}

// Cluster is a PostgreSQL server with its data.
type Cluster struct {
	dir      string
	port     int
	password string
	cred     *syscall.Credential // nil: this user's own
	life     io.WriteCloser      // the server ends when this is closed

	mu     sync.Mutex
	server *exec.Cmd
}

// New makes a cluster for one test.
func New(t testing.TB) *Cluster {
	t.Helper()
	c, err := start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// URL gives the address of an empty database by the socket. It goes when the test ends.
func (c *Cluster) URL(t testing.TB) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text())
	if err := c.admin(t.Context(), `CREATE DATABASE `+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopTime)
		defer cancel()
		_ = c.admin(ctx, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`) // the server may have been stopped for good
	})
	return c.url(name)
}

func (c *Cluster) url(database string) string {
	q := url.Values{"host": {c.dir}, "port": {strconv.Itoa(c.port)}}
	return (&url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: q.Encode()}).String()
}

// TCP turns an address of URL into one by TCP.
func (c *Cluster) TCP(t testing.TB, socketURL string) string {
	t.Helper()
	u, err := url.Parse(socketURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.Host, u.RawQuery = url.UserPassword(superuser, c.password), net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)), "sslmode=disable"
	return u.String()
}

// Stop ends the server at once, as a crash would.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return nil
	}
	_, err := io.WriteString(c.life, "keep\n")
	err = errors.Join(err, c.life.Close(), c.server.Wait())
	c.server = nil
	return err
}

// Start starts the server again after Stop.
func (c *Cluster) Start(ctx context.Context) error {
	if err := c.run(); err != nil {
		return err
	}
	return c.ready(ctx)
}

func (c *Cluster) close() { _ = errors.Join(c.Stop(), os.RemoveAll(c.dir)) }

func start(ctx context.Context) (*Cluster, error) {
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err != nil {
		return nil, fmt.Errorf("these tests need PostgreSQL 15, which `make deps` installs (Debian package postgresql): %w", err)
	}
	c := &Cluster{password: rand.Text()}
	var err error
	if c.cred, err = unprivileged(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("/tmp", "pgtest-"); err != nil { // a socket's path is short
		return nil, err
	}
	if err = c.initialize(); err == nil {
		for range startTries {
			if c.port, err = freePort(); err != nil {
				break
			}
			if err = c.Start(ctx); err == nil {
				return c, nil
			}
			_ = c.Stop()
			if !errors.Is(err, errEnded) { // another port is no help
				break
			}
		}
	}
	_ = os.RemoveAll(c.dir)
	return nil, fmt.Errorf("pgtest: %w", err)
}

// unprivileged gives the user that the server runs as: it refuses to run as root.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
	}
	return nil, errors.New("pgtest: there is no user that a PostgreSQL could run as")
}

func freePort() (int, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (c *Cluster) initialize() error {
	secret := filepath.Join(c.dir, "password")
	if err := os.WriteFile(secret, []byte(c.password), 0o600); err != nil {
		return err
	}
	if c.cred != nil {
		for _, p := range []string{c.dir, secret} {
			if err := os.Chown(p, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
				return err
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", filepath.Join(c.dir, "data"), "-U", superuser, "--pwfile", secret,
		"--auth-local=trust", "--auth-host=scram-sha-256", "--locale=C", "--encoding=UTF8", "--no-sync", "--no-instructions")
	out, err := c.prepare(cmd).CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// prepare makes cmd run as the cluster's user, in its directory, and apart from the terminal.
func (c *Cluster) prepare(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir, cmd.Env = c.dir, []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred, Setsid: true}
	return cmd
}

// The server's keeper ends it when the pipe at its standard input closes: this process has ended, and the directory goes too, unless
// it was told before to keep it. A server that ends by itself leaves a file that says so.
const keeper = `{ "$1/postgres" -D "$2/data" -k "$2" -p "$3" -c listen_addresses=127.0.0.1 -c max_connections=200 -c shared_buffers=64MB \
	-c fsync=on -c log_line_prefix='%m [%p] ' -c timezone=UTC >>"$2/log" 2>&1 </dev/null &
	echo $! >"$2/pid"
	wait $!
	echo $? >"$2/ended"; } &
read line
until [ -s "$2/pid" ]; do sleep 0.01; done
[ -e "$2/ended" ] || kill -QUIT "$(cat "$2/pid")" 2>/dev/null
wait
[ "$line" = keep ] || rm -rf "$2"
exit 0`

func (c *Cluster) run() error {
	if err := errors.Join(os.RemoveAll(c.path("ended")), os.RemoveAll(c.path("pid"))); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	cmd := c.prepare(exec.CommandContext(context.Background(), "/bin/sh", "-c", keeper, "pgtest", bin, c.dir, strconv.Itoa(c.port)))
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		return errors.Join(err, w.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.life = cmd, w
	return nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// errEnded says that the server has ended by itself.
var errEnded = errors.New("PostgreSQL has ended, its log says")

// ready waits until the server answers. Of one that has ended, or does not answer in time, the end of its log tells why.
func (c *Cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := c.admin(ctx, `SELECT 1`)
		if err == nil {
			return nil
		}
		if _, gone := os.Stat(c.path("ended")); gone == nil {
			return fmt.Errorf("%w\n%s", errEnded, c.lastWords())
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", errors.Join(ctx.Err(), err), c.lastWords())
		}
	}
}

// lastWords is the end of the server's log.
func (c *Cluster) lastWords() []byte {
	log, err := os.ReadFile(c.path("log"))
	if err != nil {
		return []byte(err.Error())
	}
	log = bytes.TrimSpace(log)
	return log[max(0, len(log)-maxWords):]
}

func (c *Cluster) admin(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, c.url("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}
