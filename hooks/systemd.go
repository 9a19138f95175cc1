package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Systemd is systemd's manager on the system bus.
type Systemd struct{}

// Start starts a unit and waits for its job. An active unit is left as it is.
func (Systemd) Start(ctx context.Context, unit string) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	result := make(chan string, 1)
	if _, err := conn.StartUnitContext(ctx, unit, "replace", result); err != nil {
		return explain(err)
	}
	select {
	case r := <-result:
		if r != "done" {
			return fmt.Errorf("systemd's start job of %s ended as %q", unit, r)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("systemd's start job of %s did not end in time", unit)
	}
}

// Failure reads the status of a unit that has failed.
func (Systemd) Failure(ctx context.Context, unit string) string {
	conn, err := connect(ctx)
	if err != nil {
		return ""
	}
	defer conn.Close()
	state, err := conn.GetUnitPropertyContext(ctx, unit, "ActiveState")
	if err != nil || state.Value.Value() != "failed" {
		return ""
	}
	text, err := conn.GetUnitTypePropertyContext(ctx, unit, "Service", "StatusText")
	if err != nil {
		return ""
	}
	said, _ := text.Value.Value().(string)
	if len(said) > maxWhy {
		said = said[:maxWhy] + "…"
	}
	return strings.ToValidUTF8(said, "?")
}

// Stop stops units, in that order, and waits for the jobs. A unit that does not run is no error.
func (Systemd) Stop(ctx context.Context, units ...string) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// All are asked for before the first is waited for: what we cannot wait for is stopped all the same.
	results := make(chan string, len(units))
	queued := 0
	var errs []error
	for _, u := range units {
		if _, err := conn.StopUnitContext(ctx, u, "replace", results); err != nil {
			if !isNoSuchUnit(err) {
				errs = append(errs, explain(err))
			}
			continue
		}
		queued++
	}
	for range queued {
		select {
		case <-results:
		case <-ctx.Done():
			return errors.Join(append(errs, errors.New("the units still stop"))...)
		}
	}
	return errors.Join(errs...)
}

func connect(ctx context.Context) (*systemd.Conn, error) {
	conn, err := systemd.NewSystemConnectionContext(ctx)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("the system bus did not answer in time: %w", err)
	}
	return nil, fmt.Errorf("cannot reach systemd by the system bus: %w", err)
}

func isNoSuchUnit(err error) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.systemd1.NoSuchUnit"
}

// explain says what systemd's refusals mean here.
func explain(err error) error {
	var e dbus.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("systemd did not answer in time")
	case !errors.As(err, &e):
		return err
	case isNoSuchUnit(err):
		return fmt.Errorf("%w (is the package complete? was systemctl daemon-reload run?)", err)
	case e.Name == "org.freedesktop.DBus.Error.AccessDenied":
		return fmt.Errorf("%w (a security module forbids the hook to speak to systemd; SELinux: ausearch -m avc -ts recent, "+
			"setsebool -P virt_hooks_unconfined on; AppArmor: journalctl -k -g apparmor)", err)
	}
	return err
}
