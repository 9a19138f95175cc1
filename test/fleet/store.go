package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"

	"virt-attest/internal/pgtest"
)

// database is a PostgreSQL server of this run; nil for SQLite.
type database struct{ cluster *pgtest.Cluster }

func (d *database) usage() usage {
	if d == nil {
		return usage{}
	}
	return treeOf(d.cluster.PID())
}

func (d *database) stop() {
	if d != nil {
		d.cluster.Close()
	}
}

// openStore gives the [store] section of the Verifiers' configuration.
func (w *world) openStore(ctx context.Context) (string, error) {
	if w.o.store == "sqlite" {
		return fmt.Sprintf("path = %q", filepath.Join(w.dir, "verifier.db")), nil
	}
	c, err := pgtest.Begin(ctx)
	if err != nil {
		return "", err
	}
	w.database = &database{c}
	url, err := c.Database(ctx)
	return fmt.Sprintf("url = %q", url), err
}

func digestOf(content string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))
}
