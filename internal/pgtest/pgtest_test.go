package pgtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"virt-attest/internal/pgtest"
)

func exec(t *testing.T, url, statement string) error {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(t.Context()) }()
	_, err = c.Exec(t.Context(), statement)
	return err
}

func TestURL_gives_each_test_a_database_of_its_own(t *testing.T) {
	for range 2 {
		if err := exec(t, pgtest.URL(t), `CREATE TABLE x (n INT)`); err != nil {
			t.Error(err)
		}
	}
}

func TestCluster_keeps_what_was_committed_over_a_crash(t *testing.T) {
	c := pgtest.New(t)
	url := c.URL(t)
	if err := exec(t, c.TCP(t, url), `CREATE TABLE x (n INT)`); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := exec(t, url, `SELECT 1`); err == nil {
		t.Error("a server that was stopped answers")
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := exec(t, url, `INSERT INTO x VALUES (1)`); err != nil {
		t.Error(err)
	}
}

// Another user of the machine must not reach databases that know no password on their socket.
func TestCluster_keeps_its_socket_from_other_users(t *testing.T) {
	u, err := pgx.ParseConfig(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		t.Errorf("%s has mode %v", u.Host, st.Mode())
	}
}

// Where PostgreSQL cannot start, a test says so at once, and why.
func TestStart_says_within_seconds_why_the_server_does_not_start(t *testing.T) {
	c := pgtest.New(t)
	u, err := pgx.ParseConfig(c.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(u.Host, "data", "postgresql.conf")
	good, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, append(good, "\nno_such_setting = on\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = c.Start(t.Context())
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "no_such_setting") || took > 10*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	if err := errors.Join(c.Stop(), os.WriteFile(conf, good, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Error(err)
	}
}
