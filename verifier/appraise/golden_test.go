package appraise_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/rim"
)

var update = flag.Bool("update", false, "write the golden verdicts anew")

// TestAppraise_gives_the_golden_verdicts holds whole Results, as a user and the API see them.
func TestAppraise_gives_the_golden_verdicts(t *testing.T) {
	for name, prepare := range map[string]func(w *world){
		"trusted":      func(*world) {},
		"hypa":         func(w *world) { w.hypa = true },
		"unlisted":     func(w *world) { w.vm.ima.File("/tmp/evil\n10 x /bin/ls", "evil") },
		"changed-file": func(w *world) { w.vm.ima.File("/usr/bin/bash", "backdoor") },
		"violation":    func(w *world) { w.vm.ima.Violation("/var/log/wtmp") },
		"other-boot": func(w *world) {
			w.vm.firmware()
			w.vm.boot.Event(4, measuretest.EvEFIAction, []byte("shell"))
			w.vm.ima.Boot()
		},
		"boot-event": func(w *world) {
			w.edit(func(s *appraise.Subject) { s.Policy.Name, s.Policy.BootEvents = "strict", rules("qemu-seabios") })
		},
		"unsigned": func(w *world) { w.edit(func(s *appraise.Subject) { s.Policy.Signatures = appraise.SignaturesRequire }) },
		"tpm": func(w *world) {
			w.vm.restart, w.vm.unsafe = 1, true
			w.edit(func(s *appraise.Subject) {
				s.Policy.RefuseSuspend, s.Policy.RefuseUnsafeClock, s.Policy.MinFirmware = true, true, 7<<48|85<<32
				s.Policy.Software = map[string]string{"qemu": "7.2", "agent": "0.3"}
			})
			w.change = func(in *appraise.Input) { in.Evidence.VMs[0].Agent.Version = "0.2.1" }
		},
		"host-untrusted": func(w *world) { w.host.ima.File("/usr/sbin/implant", "evil") },
		"no-reference":   func(w *world) { w.edit(func(s *appraise.Subject) { s.RIMs = nil }) },
		"rollback":       func(w *world) { w.round(); w.vm.reset-- },
		"log-cut": func(w *world) {
			w.change = func(in *appraise.Input) { in.Evidence.VMs[0].IMA = measuretest.Cut(in.Evidence.VMs[0].IMA, 0, 1) }
		},
		"relay": func(w *world) {
			w.change = func(in *appraise.Input) {
				in.Linked.VMs[0] = link.VMLink{UUID: vm1, Epoch: 1, LinkErr: link.StatusError(vm1, attest.VMNoRecord)}
			}
		},
		"excluded": func(w *world) {
			w.edit(func(s *appraise.Subject) {
				s.RIMs = rim.Set{goldenRIM(t, newBox(), "with-exclude", func(f *rim.File) { f.Exclude = []string{"/var/**"} })}
			})
			w.vm.ima.File("/var/lib/x", "x")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			prepare(w)
			got, err := json.MarshalIndent(w.round().VMs[0].Result, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "verdicts", name+".json")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != string(got)+"\n" {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
