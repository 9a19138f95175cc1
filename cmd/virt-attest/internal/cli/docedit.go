package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func (d *docs) editCmd() *cobra.Command {
	var f putFlags
	cmd := d.docVerb("edit NAME", "Change it in an editor (VISUAL, EDITOR), as a new version", func(ctx context.Context, client *api.Client, name string, version int) error {
		return d.edit(ctx, client, name, version, f)
	})
	f.add(cmd)
	return cmd
}

// edit gives a document to the editor until it can be read or the user gives up; what was typed is never lost.
func (d *docs) edit(ctx context.Context, client *api.Client, name string, version int, f putFlags) error {
	before, _, err := client.Document(ctx, d.kind, name, version)
	if err != nil {
		return asked(err)
	}
	newest, err := d.latest(ctx, client, name)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "virt-attest-edit-")
	if err != nil {
		return fail(exitUsage, "%v", err)
	}
	file := filepath.Join(dir, name+".json")
	if err := os.WriteFile(file, before, 0o600); err != nil {
		return fail(exitUsage, "%v", err)
	}
	after, holds, err := d.edited(ctx, file, name)
	switch {
	case err != nil:
		return fmt.Errorf("%w\nWhat you typed is in %s", err, file)
	case bytes.Equal(before, after):
		d.remark("%s '%s' not changed", d.title, clean(name))
	default:
		if err := d.putEdited(ctx, client, name, holds, newest, after, f); err != nil {
			return fmt.Errorf("%w\nWhat you typed is in %s", err, file)
		}
	}
	return os.RemoveAll(dir)
}

// putEdited stores what was edited unless somebody else has stored a version meanwhile.
func (d *docs) putEdited(ctx context.Context, client *api.Client, name, holds string, newest int, b []byte, f putFlags) error {
	now, err := d.latest(ctx, client, name)
	if err != nil {
		return err
	}
	if now != newest {
		return fail(exitWrongState, "somebody has stored version %d of '%s' meanwhile", now, clean(name))
	}
	return d.put(ctx, client, name, holds, "edited", b, f)
}

func (d *docs) edited(ctx context.Context, file, name string) (b []byte, holds string, err error) {
	for {
		if err := d.editor(ctx, file); err != nil {
			return nil, "", err
		}
		if b, err = d.readFile(file); err != nil {
			return nil, "", err
		}
		var got string
		got, holds, err = d.read(b)
		if err == nil && got != name {
			err = fmt.Errorf("the name is '%s' now; to store it under another name use define", clean(got))
		}
		if err == nil {
			return b, holds, nil
		}
		d.remark("virt-attest: %v", err)
		again, asking := d.confirm(ctx, "It cannot be used like that. Edit it again?", "a file that can be read")
		if asking != nil || !again {
			return nil, "", fail(exitConfig, "'%s' was not changed: %w", clean(name), err)
		}
	}
}

// editor runs the user's editor on the terminal. The variable may hold options, as for other programs.
func (d *docs) editor(ctx context.Context, file string) error {
	words := strings.Fields(cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi"))
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], file)...) //nolint:gosec // the user's own editor
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.in, d.out, d.err
	if err := cmd.Run(); err != nil {
		return fail(exitUsage, "the editor %s: %v", words[0], err)
	}
	return nil
}
