package lab_test

import (
	"context"
	"strings"
	"testing"
	"time"
)

func Test_a_host_that_is_rebooted_or_loses_its_power_keeps_its_disk_and_measures_anew(t *testing.T) {
	if !needsRoot(t) {
		return
	}
	h := up(t, "go-reboot", "one").Host("one")
	run(t, h, "sh", "-c", "echo kept > /var/lib/kept; echo lost > /run/lost")
	const bootID = "cat /var/lib/virt-attest-lab/boot_id"
	for name, again := range map[string]func(context.Context) error{"reboot": h.Reboot, "power cut": h.PowerCut} {
		before := run(t, h, "sh", "-c", bootID)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		err := again(ctx)
		cancel()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if out := run(t, h, "cat", "/var/lib/kept"); out != "kept\n" {
			t.Errorf("%s: the disk says %q", name, out)
		}
		if _, _, code := h.Run(t.Context(), "test", "-e", "/run/lost"); code == 0 {
			t.Errorf("%s: /run is that of before", name)
		}
		if now := run(t, h, "sh", "-c", bootID); now == before {
			t.Errorf("%s: the boot is still %s", name, now)
		}
		if out := run(t, h, "tpm2_pcrread", "sha256:10"); strings.Contains(out, strings.Repeat("0", 64)) {
			t.Errorf("%s: nothing was measured: %s", name, out)
		}
		run(t, h, "virsh", "--quiet", "list")
	}
}
