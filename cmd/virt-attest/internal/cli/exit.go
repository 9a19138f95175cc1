package cli

import (
	"errors"
	"fmt"

	"virt-attest/verifier/appraise"
)

// The exit codes, those of virt-qemu-sev-validate(1).
const (
	exitOK          = 0 // trusted, or done
	exitNotTrusted  = 1
	exitUsage       = 2 // unsupported use
	exitInsecure    = 3 // would be insecure, and --insecure was not given
	exitConfig      = 4
	exitWrongState  = 5 // stale, unknown, not running, unreachable
	exitBug         = 6
	exitInterrupted = 130
)

// exitError carries the exit code that an error means.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func fail(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

func exitCode(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e):
		return e.code
	default:
		return exitBug
	}
}

// errVerdict ends a command whose output already says everything.
var errVerdict = errors.New("not trusted")

// verdict turns states into the exit code of the worst of them.
func verdict(states []appraise.State) error {
	code := exitOK
	for _, s := range states {
		code = max(code, severity(s))
	}
	switch code {
	case 0:
		return nil
	case 1:
		return &exitError{exitWrongState, errVerdict}
	case 2:
		return &exitError{exitNotTrusted, errVerdict}
	default:
		return &exitError{exitBug, errVerdict}
	}
}

func severity(s appraise.State) int {
	switch s {
	case appraise.Trusted:
		return 0
	case appraise.Stale, appraise.Pending, appraise.Unconfigured, appraise.Unreachable:
		return 1
	case appraise.Untrusted, appraise.Rollback:
		return 2
	default:
		return 3
	}
}
