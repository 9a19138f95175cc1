package hostcheck_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
	"virt-attest/cmd/virt-attest/internal/hostcheck/checktest"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/tpmtest"
)

func findings(w *checktest.World) map[string]hostcheck.Finding {
	out := map[string]hostcheck.Finding{}
	h := w.Host(func(f hostcheck.Finding) { out[f.Check] = f })
	h.Deep = true
	h.All(w.T.Context())
	return out
}

func TestHostValidate_finds_nothing_to_complain_about_on_a_good_host(t *testing.T) {
	w := checktest.Good(t, tpmtest.Socket(t))
	w.Domain("vm", checktest.Enabled("/run/virt-attest/"+checktest.VMID, " state='connected'"), true)
	w.Domain("other", "<domain type='qemu'><uuid>"+checktest.VMID+"</uuid></domain>", true)
	got := findings(w)
	for _, name := range append(hostcheck.Names(), "VM vm") {
		f, ok := got[name]
		want := hostcheck.Pass
		switch name {
		case "the physical TPM": // it is one in software, and said to be
			want = hostcheck.Warn
		case "the Verifier": // nobody serves its socket here
			want = hostcheck.Fail
		}
		if !ok || f.Result != want {
			t.Errorf("%s: %+v", name, f)
		}
		if f.Result != hostcheck.Pass && f.Do == "" {
			t.Errorf("%s does not say what to do", name)
		}
	}
	if _, ok := got["VM other"]; ok {
		t.Error("a domain that takes no part is looked at")
	}
}

func TestHostValidate_names_what_is_wrong_and_what_to_do(t *testing.T) {
	socket := tpmtest.Socket(t)
	for name, c := range map[string]struct {
		check  string
		result hostcheck.Result
		text   string
		spoil  func(*checktest.World)
	}{
		"configuration":                     {"the configuration", hostcheck.Fail, "nmae", func(w *checktest.World) { w.Conf = "nmae = 'x'" }},
		"no KVM":                            {"KVM", hostcheck.Warn, "emulated", func(w *checktest.World) { w.Remove("dev/kvm") }},
		"no swtpm_setup":                    {"swtpm", hostcheck.Fail, "swtpm_setup", func(w *checktest.World) { w.Remove("usr/bin/swtpm_setup") }},
		"no libvirt":                        {"libvirt", hostcheck.Fail, "refused", func(w *checktest.World) { w.Virt.Err = errors.New("refused") }},
		"old libvirt":                       {"libvirt", hostcheck.Fail, "8.10.0", func(w *checktest.World) { w.Virt.Number = 8_010_000 }},
		"no external TPM":                   {"the external TPM of libvirt", hostcheck.Fail, "do not offer", func(w *checktest.World) { w.Virt.DomCaps = "<tpm supported='no'/>" }},
		"checktest.HookFile gone":           {"the hook", hostcheck.Fail, "not there", func(w *checktest.World) { w.Remove(checktest.HookFile) }},
		"checktest.HookFile not executable": {"the hook", hostcheck.Fail, "passes it over", func(w *checktest.World) { w.Chmod(checktest.HookFile, 0o644) }},
		"checktest.HookFile of others":      {"the hook", hostcheck.Fail, "others than root", func(w *checktest.World) { w.Chmod(checktest.HookFile, 0o777) }},
		"checktest.HookFile is a link": {"the hook", hostcheck.Warn, "link", func(w *checktest.World) {
			w.Remove(checktest.HookFile)
			checktest.Must(w.T, os.Symlink("/bin/true", w.Path(checktest.HookFile)))
		}},
		"libvirtd is older": {"that libvirt runs the hook", hostcheck.Warn, "before the hook", func(w *checktest.World) {
			w.Unit("libvirtd", "LoadState=loaded\nActiveState=active\nStateChangeTimestamp=@1000\n")
		}},
		"an editor's leftover":  {"other hooks", hostcheck.Warn, "50-virt-attest~", func(w *checktest.World) { w.Write(checktest.HookFile+"~", "x", 0o755) }},
		"a package's leftover":  {"other hooks", hostcheck.Warn, "dpkg-old", func(w *checktest.World) { w.Write("etc/libvirt/hooks/qemu.d/10-x.dpkg-old", "x", 0o755) }},
		"another hook":          {"other hooks", hostcheck.Pass, "10-vfio", func(w *checktest.World) { w.Write("etc/libvirt/hooks/qemu.d/10-vfio", "x", 0o755) }},
		"no user":               {"users and groups", hostcheck.Fail, "no user", func(w *checktest.World) { w.Write("etc/passwd", "root:x:0:0::/:/\n", 0o644) }},
		"QEMU of another group": {"users and groups", hostcheck.Fail, "107", func(w *checktest.World) { w.Virt.Caps = strings.ReplaceAll(w.Virt.Caps, "64055", "107") }},
		"a group that is not here": {"users and groups", hostcheck.Fail, "qemu", func(w *checktest.World) {
			w.Unit("virt-attest-sidecar@", "LoadState=loaded\nSupplementaryGroups=qemu\n")
		}},
		"no directory":      {"directories", hostcheck.Fail, "/run/virt-attest", func(w *checktest.World) { w.Remove("run/virt-attest") }},
		"an open directory": {"directories", hostcheck.Fail, "0755", func(w *checktest.World) { w.Chmod("var/lib/virt-attest/ca", 0o755) }},
		"no unit":           {"units", hostcheck.Fail, "swtpm@", func(w *checktest.World) { w.Unit("virt-attest-swtpm@", "LoadState=not-found\n") }},
		"stale unit":        {"units", hostcheck.Warn, "changed", func(w *checktest.World) { w.Unit("virt-attest-swtpm@", "LoadState=loaded\nNeedDaemonReload=yes\n") }},
		"Hostd stopped":     {"units", hostcheck.Fail, "inactive", func(w *checktest.World) { w.Unit("virt-attest-hostd", "LoadState=loaded\nActiveState=inactive\n") }},
		"Hostd failed": {"units", hostcheck.Fail, "exit-code", func(w *checktest.World) {
			w.Unit("virt-attest-hostd", "LoadState=loaded\nActiveState=failed\nResult=exit-code\n")
		}},
		"Hostd not enabled": {"units", hostcheck.Warn, "at boot", func(w *checktest.World) {
			w.Unit("virt-attest-hostd", "LoadState=loaded\nActiveState=active\nUnitFileState=disabled\n")
		}},
		"AppArmor without a rule": {"AppArmor and SELinux", hostcheck.Fail, "no rule", func(w *checktest.World) { w.Virt.Caps = strings.Replace(checktest.Secmods, "MODEL", "apparmor", 1) }},
		"AppArmor with a rule": {"AppArmor and SELinux", hostcheck.Pass, "AppArmor", func(w *checktest.World) {
			w.Virt.Caps = strings.Replace(checktest.Secmods, "MODEL", "apparmor", 1)
			w.Write("etc/apparmor.d/abstractions/libvirt-qemu", "include if exists <abstractions/libvirt-qemu.d>\n", 0o644)
			w.Write("etc/apparmor.d/abstractions/libvirt-qemu.d/x", "# c\n\"/run/virt-attest/*/*.sock\" rw,\n", 0o644)
		}},
		"AppArmor with a rule that an old libvirt does not read": {"AppArmor and SELinux", hostcheck.Fail, "no rule", func(w *checktest.World) {
			w.Virt.Caps = strings.Replace(checktest.Secmods, "MODEL", "apparmor", 1)
			w.Write("etc/apparmor.d/abstractions/libvirt-qemu.d/x", "\"/run/virt-attest/*/*.sock\" rw,\n", 0o644)
		}},
		"hook without its program": {"the hook", hostcheck.Fail, "/usr/sbin/virt-attest-hook", func(w *checktest.World) { w.Remove("usr/sbin/virt-attest-hook") }},
		"AppArmor with swtpm's profile": {"AppArmor and SELinux", hostcheck.Fail, "swtpm", func(w *checktest.World) {
			w.Virt.Caps = strings.Replace(checktest.Secmods, "MODEL", "apparmor", 1)
			w.Write("etc/apparmor.d/local/abstractions/libvirt-qemu", "/run/virt-attest/** rw,\n", 0o644)
			w.Write("etc/apparmor.d/usr.bin.swtpm", "profile swtpm {}\n", 0o644)
		}},
		"SELinux without the module": {"AppArmor and SELinux", hostcheck.Fail, "SELinux", func(w *checktest.World) {
			w.Virt.Caps = strings.Replace(checktest.Secmods, "MODEL", "selinux", 1)
			w.Outputs["semodule"] = "abrt\n"
		}},
		"SELinux with the module": {"AppArmor and SELinux", hostcheck.Pass, "SELinux", func(w *checktest.World) {
			w.Virt.Caps = strings.Replace(checktest.Secmods, "MODEL", "selinux", 1)
			w.Outputs["semodule"] = "abrt\nvirt_attest\n"
		}},
		"no TPM":                {"the physical TPM", hostcheck.Fail, "not there", func(w *checktest.World) { w.Conf = "name = 'x'" }},
		"a TPM without manager": {"the physical TPM", hostcheck.Fail, "resource manager", func(w *checktest.World) { w.Conf = "name = 'x'"; w.Write("dev/tpm0", "", 0o600) }},
		"no answer of the TPM":  {"its EK certificate", hostcheck.Skip, "does not answer", func(w *checktest.World) { w.Conf = "[tpm]\nsocket = '/nonexistent'" }},
		"a bank it lacks":       {"a quote of it", hostcheck.Fail, "tpm.pcrs", func(w *checktest.World) { w.Conf += "pcrs = 'sha512:0'\n" }},
		"no boot log":           {"the boot log", hostcheck.Warn, "left none", func(w *checktest.World) { w.Remove("sys/kernel/security/tpm0") }},
		"a broken boot log": {"the boot log", hostcheck.Fail, "cannot be read", func(w *checktest.World) {
			w.Write("sys/kernel/security/tpm0/binary_bios_measurements", "nonsense that is long enough to be a header of something", 0o644)
		}},
		"IMA is off": {"the IMA list", hostcheck.Fail, "measures nothing", func(w *checktest.World) { w.Remove("sys/kernel/security/ima") }},
		"nothing after the boot": {"the IMA list", hostcheck.Fail, "only the boot", func(w *checktest.World) {
			seg := measuretest.Load(measuretest.Names()[0]).IMA
			w.Write("sys/kernel/security/ima/binary_runtime_measurements", string(measuretest.Cut(seg, 0, 1).Data), 0o644)
		}},
		"a policy that nobody tells": {"the IMA policy", hostcheck.Warn, "does not tell", func(w *checktest.World) { w.Write("proc/cmdline", "quiet\n", 0o444) }},
		"a policy that is told": {"the IMA policy", hostcheck.Pass, "2 rules", func(w *checktest.World) {
			w.Write("sys/kernel/security/ima/policy", "dont_measure fsmagic=0x9fa0\nmeasure func=BPRM_CHECK\nmeasure func=MMAP_CHECK\n", 0o400)
		}},
		"clock":    {"the clock", hostcheck.Warn, "not synchronized", func(w *checktest.World) { w.Outputs["timedatectl"] = "no\n" }},
		"no state": {"disk space", hostcheck.Fail, "no such file", func(w *checktest.World) { w.Remove("var/lib/virt-attest") }},
		"no CA": {"the certificates", hostcheck.Fail, "cacert.pem", func(w *checktest.World) {
			w.Conf = "[verifier]\nurl = 'https://v'\n" + w.Conf[strings.Index(w.Conf, "[tpm]"):]
		}},
		"not approved": {"the enrolment", hostcheck.Fail, "approval", func(w *checktest.World) {
			w.Unit("virt-attest-hostd", strings.Replace(checktest.Hostd, "connected", "connected, not accepted yet: x", 1))
		}},
		"not connected": {"the enrolment", hostcheck.Fail, "refused", func(w *checktest.World) {
			w.Unit("virt-attest-hostd", strings.Replace(checktest.Hostd, "connected", "not connected: refused", 1))
		}},
		"a copied VM": {"VM vm", hostcheck.Fail, "copied", func(w *checktest.World) {
			w.Domain("vm", checktest.Enabled("/run/virt-attest/99999999-2222-4333-8444-555555555555", ""), false)
		}},
		"a VM without agent": {"VM vm", hostcheck.Warn, "no guest agent", func(w *checktest.World) {
			w.Domain("vm", checktest.Enabled("/run/virt-attest/"+checktest.VMID, ""), true)
		}},
		"a VM whose sidecar is gone": {"VM vm", hostcheck.Fail, "failed", func(w *checktest.World) {
			w.Domain("vm", checktest.Enabled("/run/virt-attest/"+checktest.VMID, ""), true)
			w.Unit("virt-attest-sidecar@"+checktest.VMID, "ActiveState=failed\n")
		}},
		"a VM that is shut off": {"VM vm", hostcheck.Pass, "shut off", func(w *checktest.World) {
			w.Domain("vm", checktest.Enabled("/run/virt-attest/"+checktest.VMID, ""), false)
		}},
		"not root": {"the physical TPM", hostcheck.Skip, "root", func(w *checktest.World) { w.EUID = 1000 }},
	} {
		t.Run(name, func(t *testing.T) {
			w := checktest.Good(t, socket)
			c.spoil(w)
			f := findings(w)[c.check]
			if f.Result != c.result || !strings.Contains(f.Text, c.text) || f.Result == hostcheck.Fail && f.Do == "" {
				t.Errorf("%+v", f)
			}
		})
	}
}
