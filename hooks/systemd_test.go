package hooks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>`

// bus starts a D-Bus daemon of the test's own and makes it the system bus of this process and its children.
func bus(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := filepath.Join(dir, "conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--nofork", "--print-address=1", "--config-file="+config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (the package dbus is needed: make deps)", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	return address
}

// manager stands for systemd on the bus: it has its job semantics and no units.
type manager struct {
	conn *dbus.Conn

	mu    sync.Mutex
	calls []string
	jobs  uint32
	ends  map[string]string // how a unit's jobs end; "never", or an error's name with a colon in front; default "done"
	delay time.Duration
}

func systemdOnBus(t *testing.T) *manager {
	t.Helper()
	conn, err := dbus.Connect(bus(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m := &manager{conn: conn, ends: make(map[string]string)}
	if err := conn.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(r, err)
	}
	return m
}

// StartUnit is org.freedesktop.systemd1.Manager.StartUnit.
func (m *manager) StartUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	return m.job("start", name, mode)
}

// StopUnit is org.freedesktop.systemd1.Manager.StopUnit.
func (m *manager) StopUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	return m.job("stop", name, mode)
}

func (m *manager) job(verb, name, mode string) (dbus.ObjectPath, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, verb+" "+name+" "+mode)
	end := m.ends[name]
	if e, ok := strings.CutPrefix(end, ":"); ok {
		return "/", dbus.NewError(e, []any{"Unit " + name + ": refused."})
	}
	m.jobs++
	path := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", m.jobs))
	if end == "" {
		end = "done"
	}
	if end != "never" {
		id := m.jobs
		time.AfterFunc(m.delay, func() {
			_ = m.conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", id, path, name, end)
		})
	}
	return path, nil
}

func (m *manager) end(unit, how string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ends[unit] = how
}

// wait makes jobs take that long.
func (m *manager) wait(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

func (m *manager) seen() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

var (
	sidecarUnit = "virt-attest-sidecar@" + vmID + ".service"
	swtpmUnit   = "virt-attest-swtpm@" + vmID + ".service"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestStart_waits_for_the_job_and_tells_how_it_ended(t *testing.T) {
	m := systemdOnBus(t)
	m.wait(50 * time.Millisecond)
	start := time.Now()
	if err := (Systemd{}).Start(within(t, 5*time.Second), sidecarUnit); err != nil {
		t.Fatal(err)
	}
	if time.Since(start) < 50*time.Millisecond {
		t.Fatal("did not wait for the job")
	}
	if want := []string{"start " + sidecarUnit + " replace"}; !slices.Equal(m.seen(), want) {
		t.Fatalf("calls %q", m.seen())
	}
	for end, text := range map[string]string{
		"failed":                               `ended as "failed"`,
		"timeout":                              `ended as "timeout"`,
		"canceled":                             `ended as "canceled"`,
		"dependency":                           `ended as "dependency"`,
		":org.freedesktop.systemd1.NoSuchUnit": "is the package complete",
		":org.freedesktop.DBus.Error.AccessDenied": "security module", // F15
		":org.freedesktop.systemd1.UnitMasked":     "refused",
	} {
		t.Run(end, func(t *testing.T) {
			m.end(sidecarUnit, end)
			if err := (Systemd{}).Start(within(t, 5*time.Second), sidecarUnit); err == nil || !strings.Contains(err.Error(), text) {
				t.Fatalf("%v", err)
			}
		})
	}
	t.Run("never", func(t *testing.T) {
		m.end(sidecarUnit, "never")
		start := time.Now()
		err := (Systemd{}).Start(within(t, 300*time.Millisecond), sidecarUnit)
		if err == nil || !strings.Contains(err.Error(), "did not end in time") || time.Since(start) > 2*time.Second {
			t.Fatal(err, time.Since(start))
		}
	})
}

func TestStop_asks_for_both_units_and_takes_a_unit_that_is_not_there_for_stopped(t *testing.T) {
	m := systemdOnBus(t)
	if err := (Systemd{}).Stop(within(t, 5*time.Second), sidecarUnit, swtpmUnit); err != nil {
		t.Fatal(err)
	}
	if want := []string{"stop " + sidecarUnit + " replace", "stop " + swtpmUnit + " replace"}; !slices.Equal(m.seen(), want) {
		t.Fatalf("calls %q", m.seen())
	}
	m.end(sidecarUnit, ":org.freedesktop.systemd1.NoSuchUnit")
	if err := (Systemd{}).Stop(within(t, 5*time.Second), sidecarUnit, swtpmUnit); err != nil {
		t.Fatal(err)
	}
	m.end(sidecarUnit, "never")
	if err := (Systemd{}).Stop(within(t, 200*time.Millisecond), sidecarUnit, swtpmUnit); err == nil {
		t.Fatal("says that the units have stopped")
	}
	if n := len(m.seen()); n != 6 {
		t.Fatalf("%d calls: the second unit was not stopped", n)
	}
}

func TestRun_returns_in_time_even_if_the_bus_answers_nothing(t *testing.T) {
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l, err := net.Listen("unix", dir+"/bus")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // connections queue up and nobody takes them
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+dir+"/bus")
	for op, want := range map[string]int{"prepare begin": 1, "release end": 0} {
		var stderr strings.Builder
		h := Hook{
			Args: append([]string{"hook", "vm"}, append(strings.Fields(op), "-")...), Stdin: strings.NewReader(optedIn), Stderr: &stderr,
			Units: Systemd{}, prepareDeadline: 200 * time.Millisecond, releaseDeadline: 200 * time.Millisecond,
		}
		start := time.Now()
		if code := h.Run(context.Background()); code != want || time.Since(start) > 2*time.Second {
			t.Fatalf("%s: exit %d after %v", op, code, time.Since(start))
		}
		if !strings.Contains(stderr.String(), "the system bus did not answer in time") {
			t.Fatalf("%s: %q", op, stderr.String())
		}
	}
}

func TestRun_without_a_bus_says_so(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
	err := (Systemd{}).Start(within(t, time.Second), sidecarUnit)
	if err == nil || !strings.Contains(err.Error(), "system bus") || !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}
