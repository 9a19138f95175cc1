package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

// ask is what a command does that needs the Verifier.
type ask func(ctx context.Context, client *api.Client, args []string) error

// verb makes a command that asks the Verifier.
func (a *app) verb(use, short string, args cobra.PositionalArgs, run ask) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, ValidArgsFunction: nothing, RunE: func(cmd *cobra.Command, args []string) error {
		client, err := a.conf.client()
		if err != nil {
			return err
		}
		defer client.Close()
		return run(cmd.Context(), client, args)
	}}
}

// before has a command check its flags before anything is asked.
func before(cmd *cobra.Command, check func() error) {
	cmd.PreRunE = func(*cobra.Command, []string) error { return check() }
}

// noun makes a command that only has commands below it.
func noun(use, short string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fail(exitUsage, "unknown command %s %q; see virt-attest help %s", cmd.Name(), clean(args[0]), cmd.Name())
		}
		return cmd.Help()
	}}
	cmd.AddCommand(below...)
	return cmd
}

// rangeArgs takes least to most arguments.
func rangeArgs(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fail(exitUsage, "%s expected", what)
		}
		return nil
	}
}

// confirm asks a question that must be answered with yes. Where nobody can answer, flag is what had to
// be given instead.
func (a *app) confirm(ctx context.Context, question, flag string) (bool, error) {
	if !isTerminal(a.in) {
		return false, fail(exitUsage, "%s Nobody is there to answer; give %s to say yes", question, flag)
	}
	answer, err := a.answer(ctx, question+" [y/N] ")
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes"), err
}

// answer reads one line from the terminal; an interrupt ends the waiting.
func (a *app) answer(ctx context.Context, prompt string) (string, error) {
	_, _ = fmt.Fprint(a.err, prompt)
	type line struct {
		text string
		err  error
	}
	got := make(chan line, 1)
	go func() { // ends with the process at the latest: a read from a terminal cannot be called off
		text, err := bufio.NewReader(io.LimitReader(a.in, maxAnswer)).ReadString('\n')
		got <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case l := <-got:
		if l.err != nil && !errors.Is(l.err, io.EOF) {
			return "", l.err
		}
		return strings.TrimSpace(l.text), nil
	}
}
