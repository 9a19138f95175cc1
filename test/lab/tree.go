package lab

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// MakeTree installs what was built in the repository repo below dir, with make, and gives the tree for Options.
func MakeTree(ctx context.Context, repo, dir string) (string, error) {
	tree := filepath.Join(dir, "tree")
	cmd := exec.CommandContext(ctx, "make", "-s", "install", "DESTDIR="+tree)
	cmd.Dir = repo
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("lab: make install: %w\n%s", err, out)
	}
	return tree, nil
}
