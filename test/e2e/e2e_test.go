// Package e2e runs the whole story on real parts: hosts out of containers with systemd, libvirtd,
// QEMU and swtpm, guests with IMA, and the faults that they have to survive.
//
// One lab serves all tests, since boots are what costs: the story of the demonstration comes first, the faults
// use the hosts and VMs that it leaves. A fault that is selected alone (-run) makes what it needs.
package e2e

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"virt-attest/test/lab"
	"virt-attest/test/scenario"
)

func TestHosts(t *testing.T) {
	if testing.Short() {
		t.Log("nothing is tested with -short: hosts and VMs have to boot")
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	w := world(ctx, t, "e2e")
	t.Run("the story of the demonstration holds", func(t *testing.T) { story(ctx, t, w.Telling(teller{t})) })
	t.Run("faults", func(t *testing.T) { faults(ctx, t, w.Telling(teller{t})) })
}

// world makes a lab of that name.
func world(ctx context.Context, t *testing.T, name string) *scenario.World {
	if err := lab.Require(); err != nil {
		t.Fatalf("the end-to-end tests need what `make test` installs, and root: %v", err)
	}
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(repo, "bin", "virt-attest")); err != nil {
		t.Fatalf("the programs are not built; use make test or make e2e: %v", err)
	}
	out := io.Discard
	if testing.Verbose() {
		out = os.Stderr
	}
	w, err := scenario.New(ctx, scenario.Options{Name: name, Repo: repo, Tools: []string{"./test/guest/tpm"}, Tell: teller{t}, Look: look(t), Log: slog.New(slog.NewTextHandler(out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func story(ctx context.Context, t *testing.T, w *scenario.World) {
	for _, s := range scenario.Steps() {
		if !t.Run(s.Name, func(t *testing.T) {
			if err := s.Do(ctx, w.Telling(teller{t})); err != nil {
				t.Fatal(err)
			}
		}) {
			return // each step builds on those before it
		}
	}
}

// faults runs one after another what needs hosts and daemons for itself, then side by side what
// needs a VM of its own.
func faults(ctx context.Context, t *testing.T, w *scenario.World) {
	setUp(ctx, t, w)
	type fault struct {
		name string
		test func(*bench)
	}
	each := func(t *testing.T, parallel bool, list []fault) {
		for _, f := range list {
			t.Run(f.name, func(t *testing.T) {
				if parallel {
					t.Parallel()
				}
				f.test(&bench{T: t, World: w.Telling(teller{t}), ctx: ctx})
			})
		}
	}
	each(t, false, []fault{
		{"a VM starts and runs without hostd, Verifier and libvirtd", startsAlone},
		{"enable and disable change nothing about a VM that runs", enableRunning},
		{"hostd is killed in the middle of a round", hostdKilled},
		{"the Verifier is killed while a challenge is open", verifierKilled},
		{"an agent that hangs or dies costs its own VM's answer and nobody else's", agentHangs},
		{"a guest that floods its TPM with quotes is attested like any other", quoteFlood},
		{"a guest that floods the agent's channel slows nobody down", channelFlood},
	})
	t.Run("side by side", func(t *testing.T) {
		each(t, true, []fault{
			{"a sidecar that cannot start fails the VM's start, and nothing else", sidecarCannotStart},
			{"a guest without an agent has vPCRs but no quote", agentAbsent},
			{"swtpm is killed, the store edited, the VM reset, saved, suspended and brought back", lifeOfAVM},
			{"enable keeps a vTPM that libvirt ran, disable gives it back", emulatorKept},
			{"copies of a VM are told from the VM", copies},
			{"saved evidence is verified offline as it was online", offline},
		})
	})
}
