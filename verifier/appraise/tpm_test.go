package appraise_test

import (
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/appraise"
)

func TestAppraise_refuses_TPM_firmware_that_the_policy_denies(t *testing.T) { // attack 53
	const v7_62 = 7<<48 | 62<<32 | 3126<<16
	for name, test := range map[string]struct {
		version uint64
		policy  func(p *appraise.Policy)
		want    []appraise.Code
	}{
		"nothing is named":         {v7_62, func(*appraise.Policy) {}, nil},
		"a version that is denied": {v7_62, func(p *appraise.Policy) { p.DeniedFirmware = []appraise.FirmwareRange{{First: v7_62, Last: v7_62}} }, []appraise.Code{appraise.CodeTPMFirmware}},
		"inside a range":           {v7_62, func(p *appraise.Policy) { p.DeniedFirmware = []appraise.FirmwareRange{{First: 7 << 48, Last: 8 << 48}} }, []appraise.Code{appraise.CodeTPMFirmware}},
		"beside a range": {v7_62, func(p *appraise.Policy) {
			p.DeniedFirmware = []appraise.FirmwareRange{{First: v7_62 + 1, Last: 8 << 48}}
		}, nil},
		"below what is required":      {v7_62, func(p *appraise.Policy) { p.MinFirmware = v7_62 + 1 }, []appraise.Code{appraise.CodeTPMFirmware}},
		"exactly what is required":    {v7_62, func(p *appraise.Policy) { p.MinFirmware = v7_62 }, nil},
		"newer than what is required": {8 << 48, func(p *appraise.Policy) { p.MinFirmware = v7_62 }, nil},
	} {
		w := newWorld(t)
		w.edit(func(s *appraise.Subject) { test.policy(&s.Policy) })
		w.change = func(in *appraise.Input) { in.Linked.VMs[0].Quote.FirmwareVersion = test.version }
		state := trusted
		if test.want != nil {
			state = untrusted
		}
		r := w.expect(state, test.want...)
		if test.want != nil && !strings.Contains(r.Reasons[0].Text, "7.62.3126.0 (0x0007003e0c360000)") {
			t.Errorf("%s: %s", name, r.Reasons[0].Text)
		}
	}
}

func TestAppraise_refuses_a_suspended_TPM_or_an_unsafe_clock_only_if_the_policy_does(t *testing.T) {
	w := newWorld(t)
	w.vm.restart, w.vm.unsafe = 1, true
	w.expect(trusted)
	w.edit(func(s *appraise.Subject) { s.Policy.RefuseSuspend = true })
	w.expect(untrusted, appraise.CodeTPMClock)
	w.expect(untrusted, appraise.CodeTPMClock) // until it boots
	w.edit(func(s *appraise.Subject) { s.Policy.RefuseUnsafeClock = true })
	w.expect(untrusted, appraise.CodeTPMClock, appraise.CodeTPMClock)
	w.vm.reboot("boot-2")
	w.vm.unsafe = false
	w.expect(trusted)
}

func TestAppraise_by_HYPA_takes_a_vTPM_that_says_nothing_for_one_that_is_refused(t *testing.T) {
	w := newWorld(t)
	w.hypa = true
	w.expect(trusted)
	w.edit(func(s *appraise.Subject) {
		s.Policy.RefuseSuspend, s.Policy.RefuseUnsafeClock, s.Policy.MinFirmware = true, true, 1
	})
	w.expect(untrusted, appraise.CodeTPMClock, appraise.CodeTPMFirmware)
}

func TestAppraise_demands_the_software_versions_that_the_policy_names(t *testing.T) {
	evidence := func(in *appraise.Input) {
		in.Evidence.Host.Software = []attest.Software{{Name: "virt-attest", Version: "0.3.0"}, {Name: "qemu", Version: "7.2.13"}, {Name: "swtpm", Version: "unknown"}}
		in.Evidence.VMs[0].Agent.Version = "0.3.0-dev"
	}
	for name, test := range map[string]struct {
		software map[string]string
		say      []string
	}{
		"new enough":           {map[string]string{"qemu": "7.2", "virt-attest": "0.3"}, nil},
		"too old":              {map[string]string{"qemu": "8"}, []string{"qemu is 7.2.13, the policy requires 8"}},
		"not named":            {map[string]string{"libtpms": "0.9"}, []string{"which libtpms"}},
		"not a version":        {map[string]string{"swtpm": "0"}, []string{"swtpm is unknown"}},
		"the agent":            {map[string]string{"agent": "0.2"}, nil},
		"an agent before it":   {map[string]string{"agent": "0.3"}, []string{"agent is 0.3.0-dev"}},
		"several, in an order": {map[string]string{"virt-attest": "1", "qemu": "8"}, []string{"qemu", "virt-attest"}},
	} {
		w := newWorld(t)
		w.edit(func(s *appraise.Subject) { s.Policy.Software = test.software })
		w.change = evidence
		r := w.round().VMs[0].Result
		if len(r.Reasons) != len(test.say) {
			t.Errorf("%s: %s\n%s", name, r.State, texts(r))
			continue
		}
		for i, say := range test.say {
			if r.Reasons[i].Code != appraise.CodeSoftwareVersion || !strings.Contains(r.Reasons[i].Text, say) {
				t.Errorf("%s: %+v", name, r.Reasons[i])
			}
		}
	}
	w := newWorld(t)
	w.in.Host.Policy.Software = map[string]string{"qemu": "8", "agent": "1"} // a host has no guest agent
	w.change = evidence
	out := w.round()
	check(t, out.Host.Result, untrusted, appraise.CodeSoftwareVersion)
	check(t, out.VMs[0].Result, untrusted, appraise.CodeHostNotTrusted)
	w = newWorld(t)
	w.edit(func(s *appraise.Subject) { s.Policy.Software = map[string]string{"qemu": "7.2"} })
	w.change = func(in *appraise.Input) { // a host that names a program twice does not choose which one counts
		in.Evidence.Host.Software = []attest.Software{{Name: "qemu", Version: "9"}, {Name: "qemu", Version: "5"}}
	}
	w.expect(untrusted, appraise.CodeSoftwareVersion)
}

// A VM keeps the vTPM that it was started with: what serves it counts, not what the host has on disk or serves others with.
func TestAppraise_holds_each_VM_to_the_swtpm_that_serves_it(t *testing.T) {
	least := map[string]string{"swtpm": "0.8", "libtpms": "0.9"}
	for name, c := range map[string]struct {
		serving []attest.Software
		say     string
	}{
		"new enough":   {[]attest.Software{{Name: "swtpm", Version: "0.8.2"}, {Name: "libtpms", Version: "0.9.6"}}, ""},
		"an old one":   {[]attest.Software{{Name: "swtpm", Version: "0.7.1"}, {Name: "libtpms", Version: "0.9.6"}}, "swtpm is 0.7.1"},
		"one of two":   {[]attest.Software{{Name: "swtpm", Version: "0.8.2"}, {Name: "swtpm", Version: "0.7.1"}, {Name: "libtpms", Version: "0.9.6"}}, "swtpm is 0.8.2, 0.7.1"},
		"half of them": {[]attest.Software{{Name: "swtpm", Version: "0.8.2"}}, "which libtpms"},
	} {
		w := newWorld(t)
		w.edit(func(s *appraise.Subject) { s.Policy.Software = least })
		w.in.Host.Policy.Software = least // a host has no vTPM: one policy does for both
		w.change = func(in *appraise.Input) {
			in.Evidence.Host.Software = []attest.Software{{Name: "swtpm", Version: "99"}}
			in.Evidence.VMs[0].Software = c.serving
		}
		out := w.round()
		check(t, out.Host.Result, trusted)
		r := out.VMs[0].Result
		if c.say == "" {
			check(t, r, trusted)
		} else if check(t, r, untrusted, appraise.CodeSoftwareVersion); !strings.Contains(texts(r), c.say) {
			t.Errorf("%s: %s", name, texts(r))
		}
	}
}

// The cases of attacks 44, 50 and 51, by name: what a TPM's counters tell, and what they do not.
func TestAppraise_tells_reboot_suspend_hard_reset_and_rollback_apart(t *testing.T) {
	for name, test := range map[string]struct {
		hypa   bool
		change func(w *world)
		want   appraise.State
		back   bool // the state must not have moved
	}{
		"reboot: resetCount goes on, a new log":                          {false, func(w *world) { w.vm.reboot("boot-2") }, trusted, false},
		"hard reset: no TPM2_Shutdown, the clock is behind and unsafe":   {false, func(w *world) { w.vm.reboot("boot-2"); w.vm.clock, w.vm.unsafe = 3, true }, trusted, false},
		"several boots between two attestations":                         {false, func(w *world) { w.vm.reboot("boot-2"); w.vm.reboot("boot-3") }, trusted, false},
		"suspend to RAM: restartCount goes on, the PCRs are kept":        {false, func(w *world) { w.vm.restart++ }, trusted, false},
		"suspend to RAM, and files afterwards":                           {false, func(w *world) { w.vm.restart++; w.vm.ima.File("/usr/bin/cron", "cron") }, trusted, false},
		"save and restore: a power cycle of the vTPM, the log goes on":   {false, func(w *world) { w.vm.epoch++ }, trusted, false},
		"save and restore, by HYPA":                                      {true, func(w *world) { w.vm.epoch++ }, trusted, false},
		"reboot, by HYPA: the guest names another boot":                  {true, func(w *world) { w.vm.start("boot-2") }, rollback, true}, // without a power cycle of the vTPM no PCR 10 begins anew
		"power cycle, by HYPA":                                           {true, func(w *world) { w.vm.reboot("boot-2") }, trusted, false},
		"attack 44: a reverted snapshot, resetCount goes back":           {false, func(w *world) { w.vm.reset-- }, rollback, true},
		"attack 44: a snapshot of the same boot, the clock goes back":    {false, func(w *world) { w.vm.clock -= 400 }, rollback, true},
		"attack 50: old RAM with a fresh vTPM, PCR 10 begins anew":       {false, func(w *world) { w.vm.reset = 0; w.vm.start("boot-1") }, rollback, true},
		"attack 50: a fresh VM with an old vTPM":                         {false, func(w *world) { w.vm.reset--; w.vm.start("boot-7") }, rollback, true},
		"attack 51: the PCRs are reset in suspend and the log is forged": {false, func(w *world) { w.vm.start("boot-1") }, rollback, true},
		"attack 51: the same, after a suspend that the TPM has counted":  {false, func(w *world) { w.vm.restart++; w.vm.start("boot-1") }, rollback, true},
		"restartCount goes back within one boot":                         {false, func(w *world) { w.vm.restart-- }, rollback, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.hypa, w.vm.restart = test.hypa, 2
			w.vm.ima.File("/usr/bin/cron", "cron")
			w.expect(trusted)
			before := w.in.VMs[vm1].Prior.Replay.Count
			w.edit(func(s *appraise.Subject) { s.Prior.Resync = true }) // its whole log
			test.change(w)
			r := w.round().VMs[0].Result
			if r.State != test.want {
				t.Fatalf("%s\n%s", r.State, texts(r))
			}
			if after := w.in.VMs[vm1].Prior; test.back && (after.Replay.Count != before || after.Setback == nil) {
				t.Errorf("the state moved: %+v", after)
			}
		})
	}
}

// A quote whose AK is not of the endorsement hierarchy hides the counters: such a quote never gets here, and
// a link that says so is a finding (attack 48).
func TestAppraise_takes_no_counters_from_a_quote_that_does_not_hold(t *testing.T) {
	w := newWorld(t)
	w.expect(trusted)
	before := w.in.VMs[vm1].Prior.Counters.Clock
	w.change = func(in *appraise.Input) {
		in.Linked.VMs[0] = link.VMLink{UUID: vm1, Epoch: 1, LinkErr: link.Errorf(link.KindHash, "relayed")}
	}
	w.expect(untrusted, appraise.CodeLinkHash)
	if w.in.VMs[vm1].Prior.Counters.Clock != before {
		t.Error("the counters moved")
	}
}
