package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"virt-attest/attest"
	"virt-attest/test/lab"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

const client = "../../bin/virt-attest"

// offline verifies on a machine that reaches no Verifier: the one that the tests run on.
func offline(b *bench) {
	dir := b.TempDir()
	put := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		b.check(os.WriteFile(file, data, 0o600))
		return file
	}
	web := put("web.json", []byte(b.on(b.Verifier, "virt-attest", "rim", "dump", "web")))
	host := put("host.json", []byte(b.on(b.Verifier, "virt-attest", "rim", "dump", "kvm-host")))
	for _, scheme := range []string{"sepa", "hypa", "sepa-exact"} {
		b.part(scheme, func(b *bench) {
			const kept = "/root/offline.evidence"
			r, err := b.attest(b.Good, one.Name, "--scheme", scheme, "--save", kept)
			b.check(err)
			saved, err := b.Verifier.ReadFile(kept)
			b.check(err)
			served(b, saved)
			file := put(scheme, saved)
			keys, _, code := verify(b.T, "--show-keys", file)
			if code != 0 {
				b.Fatalf("--show-keys: exit status %d", code)
			}
			args := []string{"--trust-anchor", put(scheme+".keys", keys), "--rim", web, "--host-rim", host}
			out, errs, code := verify(b.T, append(args, file)...)
			var again []*api.Report
			if err := json.Unmarshal(out, &again); err != nil || code != 0 || len(again) != 1 {
				b.Fatalf("exit status %d, %v\n%s%s", code, err, out, errs)
			}
			sameVerdicts(b, r, again[0])
			if _, _, code := verify(b.T, "--trust-anchor", args[1], "--rim", host, "--host-rim", host, file); code != 1 {
				b.Errorf("with another machine's reference values: exit status %d", code)
			}
			flips(b, saved, func(bad []byte) int {
				_, _, code := verify(b.T, append(args, put(scheme+".bad", bad))...)
				return code
			})
		})
	}
}

// served demands that the host names what serves the VM: the sidecar gets to it in its confinement.
func served(b *bench, saved []byte) {
	ev, err := attest.DecodeEvidence(saved)
	b.check(err)
	for _, vm := range ev.VMs {
		want := []attest.Software{{Name: "swtpm"}, {Name: "libtpms"}}
		for i, s := range vm.Software {
			if i < len(want) && s.Name == want[i].Name && appraise.AtLeast(s.Version, "0.1") {
				want[i].Version = s.Version
			}
		}
		if !slices.Equal(vm.Software, want) {
			b.Errorf("VM %s is served by %v", vm.Name, vm.Software)
		}
	}
}

func sameVerdicts(b *bench, online, offline *api.Report) {
	pairs := [][2]appraise.Result{{online.Host, offline.Host}}
	if len(online.VMs) != len(offline.VMs) {
		b.Fatalf("%d VMs online, %d offline", len(online.VMs), len(offline.VMs))
	}
	for i := range online.VMs {
		pairs = append(pairs, [2]appraise.Result{online.VMs[i], offline.VMs[i]})
	}
	for _, p := range pairs {
		if p[0].UUID != p[1].UUID || p[0].State != appraise.Trusted || p[1].State != p[0].State || p[0].Entries != p[1].Entries {
			b.Errorf("online %+v\noffline %+v", p[0], p[1])
		}
	}
}

// flips changes one byte in each part of the evidence that is proven.
func flips(b *bench, saved []byte, verify func([]byte) int) {
	ev, err := attest.DecodeEvidence(saved)
	b.check(err)
	vm := ev.VMs[0]
	parts := map[string][]byte{
		"nonce": ev.Challenge.Nonce[:], "host's quote": ev.Host.Quote.Attest, "host's signature": ev.Host.Quote.Signature,
		"host's log": within(ev.Host.IMA.Data, "/usr/sbin/libvirtd"), "host's PCR": ev.Host.PCRs[0].PCRs[0].Value, "host's key": ev.Host.AK,
		"VM's log": within(vm.IMA.Data, "/sbin/init"), "VM's PCR": vm.PCRs[0].PCRs[0].Value,
		"VM's endorsement key": vm.EK, "VM's EK name": vm.EKName,
	}
	if ev.Challenge.Scheme != attest.SchemeHYPA {
		parts["VM's quote"], parts["VM's signature"], parts["VM's attestation key"] = vm.Quote.Attest, vm.Quote.Signature, vm.AK
		parts["recorded hash"] = vm.QuoteHash[:]
	}
	for name, part := range parts {
		at := bytes.Index(saved, part)
		if at < 0 {
			b.Fatalf("the %s is not in the encoding", name)
		}
		for _, i := range []int{at, at + len(part)/2, at + len(part) - 1} {
			bad := slices.Clone(saved)
			bad[i] ^= 1
			if code := verify(bad); code != 1 {
				b.Errorf("a byte of the %s changed (%d of %d): exit status %d", name, i-at, len(part), code)
			}
		}
	}
}

// within is the place of a path in a log. The digests by SHA-1 beside it prove nothing in another bank.
func within(log []byte, path string) []byte {
	i := bytes.Index(log, []byte(path))
	if i < 0 {
		return nil
	}
	return log[i : i+len(path)]
}

func verify(t *testing.T, args ...string) (stdout, stderr []byte, code int) {
	cmd := exec.CommandContext(t.Context(), client, append([]string{"--json", "--verifier", "unix:///nonexistent/api.sock", "verify"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	code, err := lab.ExitCode(t.Context(), cmd.Run())
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), errs.Bytes(), code
}
