package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func (a *app) waitCmd() *cobra.Command {
	var state string
	var timeout time.Duration
	cmd := a.machineVerb("wait DOMAIN --for STATE", "Wait until a machine is in a state",
		func(ctx context.Context, client *api.Client, m *machine) error {
			return a.wait(ctx, client, m, appraise.State(strings.ToUpper(state)), timeout)
		})
	before(cmd, func() error {
		if !slices.Contains(appraise.States(), appraise.State(strings.ToUpper(state))) {
			return fail(exitUsage, "unknown state %q (%s)", clean(state), strings.Join(stateWords(), ", "))
		}
		return nil
	})
	cmd.Long = "Waits for the Verifier's events, without asking for an attestation. Exit status: 0 when the machine is in the state;\n" +
		"after --timeout that of the state it is in then, 5 where that would be 0."
	cmd.Flags().StringVar(&state, "for", "trusted", "the `STATE` to wait for")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait")
	_ = cmd.RegisterFlagCompletionFunc("for", words(stateWords()...))
	return cmd
}

// wait follows a machine's events until it is in a state. The order matters: events from before the first look count.
func (a *app) wait(ctx context.Context, client *api.Client, m *machine, want appraise.State, timeout time.Duration) error {
	until, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	now := a.watch(until, client, m, want)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case now == nil:
		return a.waited(m, want)
	case errors.Is(now, errLate):
		a.remark("virt-attest: '%s' is %s after %v", clean(m.name), m.result.State, timeout)
		if err := verdict([]appraise.State{m.result.State}); err != nil {
			return err
		}
		return &exitError{exitWrongState, errVerdict}
	}
	return now
}

// errLate says that the time was over first.
var errLate = errors.New("too late")

// watch looks at the machine now and after each of its events; nil when it is in the state.
func (a *app) watch(ctx context.Context, client *api.Client, m *machine, want appraise.State) error {
	bar := a.begin("waiting for "+string(want), 0)
	defer bar.end()
	look := func() error {
		got, err := a.find(ctx, client, m.id, m.isHost)
		if err != nil {
			return err
		}
		if bar.step(); got.result.State == want {
			*m = *got
			return errEnough
		}
		m.result = got.result
		a.step("'%s' is %s", clean(m.name), got.result.State)
		return nil
	}
	after, err := newestEvent(ctx, client)
	if err == nil {
		err = look()
	}
	if err == nil {
		err = client.Follow(ctx, api.EventFilter{After: after, Machine: m.id}, func(api.Event) error { return look() })
	}
	switch {
	case errors.Is(err, errEnough):
		return nil
	case ctx.Err() != nil:
		return errLate
	}
	return asked(err)
}

func (a *app) waited(m *machine, want appraise.State) error {
	if done, err := a.structured(brief{Name: m.name, State: want, Reason: decisive(m.result)}); done {
		return err
	}
	a.printf("%s\n", a.colour(want))
	return nil
}
