package systemd

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/hooks"
	"virt-attest/internal/domainxml"
	"virt-attest/internal/sidecarproto"
)

// unit is a parsed unit file: "Section/Key" to values in order.
type unit map[string][]string

func (u unit) get(key string) string { return strings.Join(u[key], " ") }

// words gives all words of a setting that may be given several times.
func (u unit) words(key string) []string { return strings.Fields(u.get(key)) }

func parse(t *testing.T, name string) unit {
	t.Helper()
	text := strings.ReplaceAll(file(t, name), "\\\n", " ")
	u, section := make(unit), ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch key, value, ok := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case ok:
			u[section+"/"+key] = append(u[section+"/"+key], value)
		default:
			t.Fatalf("%s: %q", name, line)
		}
	}
	return u
}

func file(t *testing.T, name string) string {
	t.Helper()
	b, err := Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func units(t *testing.T) []string {
	t.Helper()
	names, err := fs.Glob(Files, "*.service")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

const (
	sidecar     = "virt-attest-sidecar@.service"
	swtpm       = "virt-attest-swtpm@.service"
	manufacture = "virt-attest-manufacture@.service"
	keys        = "virt-attest-custody@.service"
)

var vm = attest.UUID{0xab, 15: 0xcd}

// instance gives a name that holds the VM's UUID with %i in its place.
func instance(s string) string { return strings.ReplaceAll(s, vm.String(), "%i") }

func TestAllUnits_are_there(t *testing.T) {
	want := []string{
		"virt-attest-custody@.service", "virt-attest-guest.service", "virt-attest-hostd.service", manufacture, sidecar, swtpm, "virt-attest-verifierd.service",
	}
	if got := units(t); !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
}

var execLine = regexp.MustCompile(`(?m)^(Exec\w+=[-+!@:]*)/\S+`)

// verified writes the units with programs that exist on every machine and runs systemd-analyze on them.
func verified(t *testing.T, args ...string) {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	names := units(t)
	if args[0] == "verify" {
		names = append(names, "run-vtpm.custody.mount")
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		text := execLine.ReplaceAllString(file(t, name), "${1}/bin/true")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	out, err := exec.Command("systemd-analyze", append(args, paths...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %q: %v\n%s", args, err, out)
	}
	if args[0] == "verify" && len(out) > 0 {
		t.Fatalf("%s", out)
	}
}

func TestSystemd_understands_every_line(t *testing.T) { verified(t, "verify", "--man=no") }

// exposures are bounds in tenths, as systemd (252) measures: 9.6 is a service without any protection, and up to 4.9 systemd says
// "OK". Each bound is what the unit has: whoever opens one further says why here.
var exposures = map[string]int{
	"virt-attest-guest.service":     12, // root, for the TPM, the port and the logs
	"virt-attest-hostd.service":     26, // root, the network, all sidecars' sockets
	manufacture:                     20, // root, chown
	"virt-attest-custody@.service":  19, // root, the physical TPM
	sidecar:                         19, // leaves out what mounts would forbid once more: docs/adr/0002
	swtpm:                           17,
	"virt-attest-verifierd.service": 16, // the network
}

func TestUnits_stay_shut_in(t *testing.T) {
	for _, name := range units(t) {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		text := execLine.ReplaceAllString(file(t, name), "${1}/bin/true")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		bound, ok := exposures[name]
		if !ok {
			t.Errorf("%s has no bound", name)
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold="+strconv.Itoa(bound), path).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Log(lines[len(lines)-1])
		if err != nil {
			t.Errorf("%s is more exposed than %d: %v\n%s", name, bound, err, out)
		}
	}
}

// Whoever writes a unit for a VM gives it bounds: one VM must not take what all have.
func TestUnitsOfAVM_have_limits_and_say_whose_they_are(t *testing.T) {
	for _, name := range []string{sidecar, swtpm} {
		u := parse(t, name)
		for _, key := range []string{"MemoryMax", "TasksMax", "LimitNOFILE", "LogRateLimitBurst"} {
			if u.get("Service/"+key) == "" {
				t.Errorf("%s: no %s=", name, key)
			}
		}
	}
	for _, name := range []string{sidecar, swtpm, manufacture} {
		if got := parse(t, name).get("Service/LogExtraFields"); got != "VIRT_ATTEST_VM=%i" {
			t.Errorf("%s: its messages cannot be found by VM: %q", name, got)
		}
	}
}

func TestDaemons_are_restarted_when_they_hang(t *testing.T) {
	for _, name := range []string{sidecar, "virt-attest-hostd.service", "virt-attest-verifierd.service"} {
		if parse(t, name).get("Service/WatchdogSec") == "" {
			t.Errorf("%s has no watchdog", name)
		}
	}
}

func TestHook_units_XML_and_sockets_agree_on_names(t *testing.T) {
	if got := strings.ReplaceAll(instance(hooks.SidecarUnit(vm)), "%i", ""); got != sidecar {
		t.Errorf("the hook starts %s", got)
	}
	if got := strings.ReplaceAll(instance(hooks.SWTPMUnit(vm)), "%i", ""); got != swtpm {
		t.Errorf("the hook stops %s", got)
	}
	s, tpm, m := parse(t, sidecar), parse(t, swtpm), parse(t, manufacture)
	runtime := instance(filepath.Dir(domainxml.SocketPath(vm, sidecarproto.TPMSocket)))
	if got := "/run/" + s.get("Service/RuntimeDirectory"); got != runtime || domainxml.RuntimeDir+"/%i" != runtime {
		t.Errorf("QEMU is told %s, the sidecar has %s", runtime, got)
	}
	state := instance(domainxml.StateDir(vm))
	if !strings.Contains(tpm.get("Service/ExecStart"), "--tpmstate dir="+state+",") || !slices.Contains(tpm.words("Service/BindPaths"), state) {
		t.Errorf("the command line moves state to %s, swtpm has %s", state, tpm.get("Service/ExecStart"))
	}
	ctrl := "/run/" + tpm.get("Service/RuntimeDirectory")
	if !strings.Contains(tpm.get("Service/ExecStart"), "path="+ctrl+"/ctrl.sock,") || !slices.Contains(s.words("Service/BindPaths"), "-"+ctrl) {
		t.Errorf("swtpm listens in %s, the sidecar sees %s", ctrl, s.get("Service/BindPaths"))
	}
	if !strings.HasPrefix(s.get("Service/ExecStart"), "/usr/libexec/virt-attest/virt-attest-sidecar run %i") ||
		!strings.HasPrefix(m.get("Service/ExecStart"), "/usr/libexec/virt-attest/virt-attest-sidecar manufacture %i") {
		t.Error("the sidecar's program is started otherwise")
	}
}

func TestUnitsOfAVM_live_and_die_each_on_its_own(t *testing.T) {
	s, tpm := parse(t, sidecar), parse(t, swtpm)
	if s.get("Unit/Wants") != "virt-attest-swtpm@%i.service" || !slices.Contains(s.words("Unit/After"), "virt-attest-swtpm@%i.service") {
		t.Error("the sidecar does not bring its swtpm along")
	}
	for name, u := range map[string]unit{sidecar: s, swtpm: tpm} {
		for _, tie := range []string{"Requires", "Requisite", "BindsTo", "PartOf", "Upholds", "Conflicts", "PropagatesStopTo", "StopPropagatedFrom"} {
			if v := u.get("Unit/" + tie); strings.Contains(v, "sidecar") || strings.Contains(v, "swtpm") {
				t.Errorf("%s: %s=%s: a restart of one takes the other with it", name, tie, v)
			}
		}
		for _, forbidden := range []string{"libvirt", "virtqemud", "network", "hostd", "verifier"} {
			if v := u.get("Unit/After") + u.get("Unit/Wants") + u.get("Unit/Requires"); strings.Contains(v, forbidden) {
				t.Errorf("%s: a VM's start waits for %q", name, v)
			}
		}
		if u.get("Unit/StartLimitIntervalSec") != "0" {
			t.Errorf("%s: systemd gives up after a few crashes", name)
		}
		if u.get("Service/RuntimeDirectoryPreserve") != "restart" {
			t.Errorf("%s: sockets go away when it is started again", name)
		}
	}
	if s.get("Service/Restart") != "always" || s.get("Service/Type") != "notify" || s.get("Service/FileDescriptorStoreMax") != "16" {
		t.Error("QEMU's descriptors do not outlive the sidecar")
	}
	if tpm.get("Service/Restart") != "on-failure" {
		t.Error("swtpm is not started again, or also when QEMU has shut it down")
	}
}

func TestACustody_that_fails_starts_no_swtpm_and_makes_no_vTPM_in_clear(t *testing.T) {
	unit, where := "virt-attest-custody@%i.service", "/run/"+parse(t, keys).get("Service/RuntimeDirectory")
	for _, name := range []string{swtpm, manufacture} {
		u := parse(t, name)
		if !slices.Contains(u.words("Unit/Requires"), unit) || !slices.Contains(u.words("Unit/After"), unit) {
			t.Errorf("%s starts without its keys", name)
		}
	}
	u := parse(t, swtpm)
	if u.get("Service/EnvironmentFile") != "-"+where+"/env" || u.get("Service/Environment") != "CUSTODY=" || u.get("Service/BindReadOnlyPaths") != "-"+where ||
		!strings.HasSuffix(u.get("Service/ExecStart"), " $CUSTODY") {
		t.Errorf("swtpm does not get what is in %s", where)
	}
	if m := parse(t, "run-vtpm.custody.mount"); m.get("Mount/Where") != filepath.Dir(where) || m.get("Mount/Type") != "ramfs" {
		t.Errorf("keys in %s can be swapped to a disk", where)
	}
}

func TestUnitsOfAVM_are_stopped_after_the_guests(t *testing.T) { // F15: host shutdown
	for _, name := range []string{sidecar, swtpm, manufacture, keys, "run-vtpm.custody.mount"} {
		before := parse(t, name).words("Unit/Before")
		for _, want := range []string{"virt-guest-shutdown.target", "libvirtd.service", "virtqemud.service"} {
			if !slices.Contains(before, want) {
				t.Errorf("%s is not ordered before %s", name, want)
			}
		}
	}
}

func TestSidecar_gives_up_before_the_hook_does(t *testing.T) {
	limit, err := time.ParseDuration(parse(t, sidecar).get("Service/TimeoutStartSec") + "s")
	if err != nil || limit >= hooks.PrepareDeadline {
		t.Fatalf("unit %v, hook %v, %v", limit, hooks.PrepareDeadline, err)
	}
}

func TestUnitsOfAVM_have_no_network_and_see_no_other_VM(t *testing.T) {
	for _, name := range []string{sidecar, swtpm} {
		u := parse(t, name)
		for key, want := range map[string]string{
			"PrivateNetwork": "yes", "RestrictAddressFamilies": "AF_UNIX", "CapabilityBoundingSet": "", "NoNewPrivileges": "yes",
			"ProtectSystem": "strict", "User": "virt-attest", "TemporaryFileSystem": "/run:ro /tmp:ro /var:ro", "DevicePolicy": "closed",
		} {
			if got, ok := u["Service/"+key]; !ok || strings.Join(got, " ") != want {
				t.Errorf("%s: %s=%q, want %q", name, key, got, want)
			}
		}
		for _, path := range u.words("Service/BindPaths") {
			if !strings.HasSuffix(path, "/%i") {
				t.Errorf("%s: %s is not the VM's own", name, path)
			}
		}
	}
}

func TestUsersAndDirectories_of_the_units_are_made(t *testing.T) {
	users, dirs := file(t, "sysusers.d/virt-attest-host.conf")+file(t, "sysusers.d/virt-attest-verifier.conf"), file(t, "tmpfiles.d/virt-attest-host.conf")
	dirs += "\nd " + parse(t, "run-vtpm.custody.mount").get("Mount/Where") + " by mounting"
	for _, name := range units(t) {
		u := parse(t, name)
		if user := u.get("Service/User"); user != "" && !strings.Contains("\n"+users, "\nu "+user+" ") {
			t.Errorf("%s: nobody makes the user %s", name, user)
		}
		for key, root := range map[string]string{"RuntimeDirectory": "/run/", "StateDirectory": "/var/lib/"} {
			if d := u.get("Service/" + key); strings.Contains(d, "/") && !strings.Contains(dirs, "\nd "+root+filepath.Dir(d)+" ") {
				t.Errorf("%s: nobody makes %s%s", name, root, filepath.Dir(d))
			}
		}
	}
	for _, secret := range []string{"/var/lib/virt-attest/ca    0700 root root"} {
		if !strings.Contains(dirs, "d "+secret) {
			t.Errorf("%s is missing", secret)
		}
	}
}
