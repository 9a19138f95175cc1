package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
)

// database is a PostgreSQL server of this run; nil for SQLite.
type database struct{ pid int }

func (d *database) usage() usage {
	if d == nil {
		return usage{}
	}
	return treeOf(d.pid)
}

func (d *database) stop() {}

// openStore gives the [store] section of the Verifiers' configuration.
func (w *world) openStore(_ context.Context) (string, error) {
	return fmt.Sprintf("path = %q", filepath.Join(w.dir, "verifier.db")), nil
}

func digestOf(content string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))
}
