package store

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"virt-attest/internal/pgtest"
)

func TestBackup_of_PostgreSQL_is_restored_by_pg_restore(t *testing.T) {
	c := pgtest.New(t)
	address := c.TCP(t, c.URL(t))
	s := database{Config{URL: address, Chain: chain}}.open(t)
	must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
	file := filepath.Join(t.TempDir(), "backup")
	must(t, s.Backup(t.Context(), file))
	st, err := os.Stat(file)
	must(t, err)
	if st.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v", st.Mode())
	}
	to := c.URL(t)
	if out, err := exec.CommandContext(t.Context(), "pg_restore", "--no-owner", "--dbname="+to, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, err = database{Config{URL: to, Chain: chain}}.open(t).Host(t.Context(), "h1")
	must(t, err)
}

func TestBackup_never_shows_a_password(t *testing.T) {
	for _, address := range []string{"postgres://u:hunter2@h/d?sslmode=require", "postgres://u@h/d?password=hunter2&sslmode=require", "host=h password=hunter2 sslmode=require",
		`host=h password = 'hunter2 and \'more' sslmode=require`} {
		got, _ := withoutPassword(address)
		if strings.Contains(got, "hunter2") || !strings.Contains(got, "sslmode=require") {
			t.Errorf("%s: %s", address, got)
		}
	}
	_, err := Open(t.Context(), Config{URL: "postgres://u:hunter2@h:notaport/d"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	_, err = Open(t.Context(), Config{URL: "postgres://u:hunter2@127.0.0.1:1/d"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
