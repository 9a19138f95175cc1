package guestagent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"virt-attest/internal/sealed"
)

// secretMain is the program's command "secret NAME": it writes a released secret to stdout. Secrets come when the VM is found
// TRUSTED, so that a boot waits for one. The exit status is 0, 1 where it did not come in time, 2 for wrong usage.
func secretMain(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("virt-attest-guest secret", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("secrets", DefaultSecrets, "`directory` in memory for released secrets")
	wait := flags.Duration("wait", 0, "how long to wait for it to be released")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	err := sealed.CheckName(flags.Arg(0))
	if flags.NArg() != 1 || err != nil || *wait < 0 || *wait > maxWait {
		fmt.Fprintln(stderr, "usage: virt-attest-guest secret [-wait TIME] [-secrets DIRECTORY] NAME")
		return 2
	}
	value, err := awaitSecret(ctx, filepath.Join(*dir, flags.Arg(0)), *wait)
	if err != nil {
		fmt.Fprintf(stderr, "virt-attest-guest: secret %s was not released: %v\n", flags.Arg(0), err)
		return 1
	}
	defer clear(value)
	if _, err := stdout.Write(value); err != nil {
		fmt.Fprintln(stderr, "virt-attest-guest:", err)
		return 1
	}
	return 0
}

func awaitSecret(ctx context.Context, path string, wait time.Duration) ([]byte, error) {
	for end := time.Now().Add(wait); ; {
		value, err := readFile(path, sealed.MaxSecret)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || time.Now().After(end) {
			return value, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(waitEvery):
		}
	}
}
