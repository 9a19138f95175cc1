package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"virt-attest/test/guest"
	"virt-attest/test/scenario"
	"virt-attest/verifier/appraise"
)

// What policies ask for, and the host allows, on real VMs: pause, the start gate, secrets. It has a lab of its own, since what is
// done to VMs here is no good to other tests.
func TestEnforcement(t *testing.T) {
	if testing.Short() {
		t.Log("nothing is tested with -short: hosts and VMs have to boot")
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	w := world(ctx, t, "enforce")
	b := &bench{T: t, World: w.Telling(teller{t}), ctx: ctx}
	b.enforced()
	for _, s := range []struct {
		name string
		test func(*bench)
	}{
		{"a secret arrives in a trusted VM and not in an untrusted one", secretsArrive},
		{"a VM that is untrusted is paused, and goes on when its file is accepted", pausedAndAccepted},
		{"a VM has no network until its boot is trusted, and its secret again after it", gatedStart},
	} {
		if !b.part(s.name, s.test) {
			return
		}
	}
}

const (
	enforcing = `{"format": "virt-attest/policy/1", "name": "enforcing", "enforce": {"action": "pause", "gate": {"on": true, "limit": "5m"}}, "secrets": {"max_age": "2m"}}`
	plainly   = `{"format": "virt-attest/policy/1", "name": "plain", "secrets": {"max_age": "2m"}}`
)

// enforced makes two good VMs, with policies, on a host that allows what they ask for.
func (b *bench) enforced() {
	errs := make(chan error, 2)
	for _, v := range []scenario.VM{one, two} {
		go func() { errs <- b.Launch(b.ctx, b.Good, v, nil) }()
	}
	for range 2 {
		b.check(<-errs)
	}
	for _, v := range []scenario.VM{one, two} {
		b.judged(v)
	}
	conf, err := b.World.Quiet(b.ctx, b.Good, "cat", "/etc/virt-attest/host.toml")
	b.check(err)
	conf += "\n[enforce]\nallow = [\"pause\", \"start-gate\"]\n"
	b.check(b.Good.WriteFile(b.ctx, "/etc/virt-attest/host.toml", []byte(conf), 0o644))
	b.on(b.Verifier, "virt-attest", "rim", "create", "kvm-host", "--from-host", "good")
	b.on(b.Verifier, "virt-attest", "rim", "assign", "kvm-host", "good", "--host")
	b.on(b.Verifier, "virt-attest", "rim", "create", "web", "--from-domain", one.Name)
	for name, text := range map[string]string{"enforcing": enforcing, "plain": plainly} {
		b.check(b.Verifier.WriteFile(b.ctx, "/tmp/"+name+".json", []byte(text), 0o644))
		b.on(b.Verifier, "virt-attest", "policy", "define", "/tmp/"+name+".json")
	}
	for v, p := range map[scenario.VM]string{one: "enforcing", two: "plain"} {
		b.on(b.Verifier, "virt-attest", "rim", "assign", "web", v.Name)
		b.on(b.Verifier, "virt-attest", "policy", "assign", p, v.Name)
	}
	b.soonTrusted(30*time.Second, one, two)
}

const takeSecret = guest.AgentPath + " secret -wait "

func secretsArrive(b *bench) {
	b.in(two, guest.Unlisted)
	b.want(two, appraise.Untrusted, appraise.CodeIMAUnlisted)
	b.check(b.Verifier.WriteFile(b.ctx, "/tmp/key", []byte("open sesame"), 0o600))
	b.on(b.Verifier, "virt-attest", "secret", "define", "disk", "--file", "/tmp/key")
	b.on(b.Verifier, "virt-attest", "secret", "assign", "disk", one.Name, two.Name)
	b.on(b.Good, "systemctl", "restart", "virt-attest-hostd.service") // it hears of new rules when it connects
	b.soonTrusted(30*time.Second, one)
	b.soon(40*time.Second, func() error {
		b.judged(one)
		if got := b.in(one, takeSecret+"2s disk || true"); got != "open sesame" {
			return fmt.Errorf("the secret in the VM is %q", got)
		}
		return nil
	})
	if got := b.in(one, "stat -c %a /run/virt-attest-guest/secrets/disk"); got != "400" {
		b.Errorf("the file's mode is %s", got)
	}
	b.want(two, appraise.Untrusted, appraise.CodeIMAUnlisted)
	if got := b.in(two, takeSecret+"3s disk 2>/dev/null || echo none"); got != "none" {
		b.Errorf("an untrusted VM has %q", got)
	}
	if list := b.on(b.Verifier, "virt-attest", "--json", "secret", "list"); strings.Contains(list, "sesame") || !strings.Contains(list, one.UUID) {
		b.Errorf("secret list shows %s", list)
	}
	if out, _, code := b.Verifier.Run(b.ctx, "grep", "-rl", "open sesame", "/var/lib/virt-attest-verifier"); code == 0 {
		b.Errorf("the secret is in clear in %s", out)
	}
}

// is waits until a VM is in one of libvirt's states.
func (b *bench) is(v scenario.VM, state string) {
	b.Helper()
	b.soon(30*time.Second, func() error {
		if s := b.virsh("domstate", v.Name); s != state {
			return fmt.Errorf("%s is %q, not %q", v.Name, s, state)
		}
		return nil
	})
}

func pausedAndAccepted(b *bench) {
	b.in(one, guest.Unlisted)
	b.judged(one)
	b.is(one, "paused")
	b.want(one, appraise.Untrusted, appraise.CodeIMAUnlisted) // what it is paused for stays in view
	b.soon(15*time.Second, func() error {
		if h, err := b.World.Run(b.ctx, b.Verifier, 0, "virt-attest", "history", one.Name); err != nil || !strings.Contains(h, "was paused") {
			return fmt.Errorf("the history does not tell: %s, %w", h, err)
		}
		return nil
	})
	b.is(two, "running") // its policy asks for nothing
	b.on(b.Verifier, "virt-attest", "rim", "accept", "web", one.Name, "--all", "--yes")
	b.is(one, "running")
	b.soonTrusted(30*time.Second, one)
}

func (b *bench) link() string {
	out := strings.Fields(b.virsh("domiflist", one.Name))
	if len(out) < 5 {
		b.Fatalf("%s has no interface: %v", one.Name, out)
	}
	state := strings.Fields(b.virsh("domif-getlink", one.Name, out[len(out)-1]))
	return state[len(state)-1]
}

func gatedStart(b *bench) {
	if l := b.link(); l != "up" {
		b.Errorf("before: the link is %s", l)
	}
	b.virsh("destroy", one.Name)
	b.virsh("start", one.Name)
	began := time.Now()
	b.soon(5*time.Second, func() error {
		if l := b.link(); l != "down" {
			return fmt.Errorf("the link is %s", l)
		}
		return nil
	})
	b.Logf("no network from %v after the start on", time.Since(began).Round(time.Millisecond))
	b.booted(one)
	b.soonTrusted(60*time.Second, one)
	b.soon(15*time.Second, func() error {
		if l := b.link(); l != "up" {
			return fmt.Errorf("the link is %s", l)
		}
		return nil
	})
	b.soon(30*time.Second, func() error {
		if got := b.in(one, takeSecret+"5s disk || true"); got != "open sesame" {
			return fmt.Errorf("the secret in the VM is %q", got)
		}
		return nil
	})
	b.is(one, "running")
}
