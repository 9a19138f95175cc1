// Package lifecycle takes VMs through all that libvirt does to them, on real hosts with real guests, and holds each
// event to what docs/lifecycle.md says of it: what the operator sees, the verdict, and how long it takes.
//
// One lab serves all events, and VMs are booted once where that is honest: each event begins with the VM TRUSTED and ends
// with it TRUSTED again. With -matrix=quick, the default, those events run that nothing else in this repository shows;
// `make lifecycle` runs all of them.
package lifecycle

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"virt-attest/test/lab"
	"virt-attest/test/scenario"
)

var (
	matrix = flag.String("matrix", "quick", "which events: quick or all")
	update = flag.Bool("update", false, "write the table of docs/lifecycle.md, with the times of the events that this run has taken")
)

// event is one thing that happens to a VM, and a row of the table.
type event struct {
	name    string // of the row, and of the subtest
	sees    string // what the operator sees
	verdict string // one for each that the test waits for
	quick   bool   // runs with -matrix=quick
	test    func(*bench)
}

// chapter is a run of events that happen to the same VMs, one after the other.
type chapter struct {
	title  string
	set    func(*bench) // makes what all of them need
	events []event
}

func chapters() []chapter {
	return []chapter{
		{"The life of one VM", oneVM, lifeEvents()},
		{"What breaks", nil, crashEvents()},
		{"Several hosts", twoHosts, hostEvents()},
		{"Kinds of machines", nil, machineEvents()},
		{"The host itself", nil, wholeHostEvents()},
	}
}

func TestLifecycle(t *testing.T) {
	if testing.Short() {
		t.Log("nothing is tested with -short: hosts and VMs have to boot")
		return
	}
	if *matrix != "quick" && *matrix != "all" {
		t.Fatalf("-matrix=%s: quick or all", *matrix)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	b := &bench{T: t, World: world(ctx, t), ctx: ctx, times: times{}}
	for _, c := range chapters() {
		if !b.chapter(c) {
			break
		}
	}
	b.times.tell(t)
	if *update {
		writeTable(t, b.times)
	}
}

// chapter runs those events that are wanted, and what they need only if there are any.
func (b *bench) chapter(c chapter) bool {
	var wanted []event
	for _, e := range c.events {
		if e.quick || *matrix == "all" {
			wanted = append(wanted, e)
		}
	}
	if len(wanted) == 0 {
		return true
	}
	return b.T.Run(c.title, func(t *testing.T) {
		b := b.with(t, "")
		if c.set != nil {
			c.set(b)
		}
		for _, e := range wanted {
			if !t.Run(e.name, func(t *testing.T) { e.test(b.with(t, e.name)) }) {
				return // what follows needs the VM that this one has left
			}
		}
	})
}

func world(ctx context.Context, t *testing.T) *scenario.World {
	if err := lab.Require(); err != nil {
		t.Fatalf("these tests need what `make test` installs, and root: %v", err)
	}
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(repo, "bin", "virt-attest")); err != nil {
		t.Fatalf("the programs are not built; use make test or make lifecycle: %v", err)
	}
	out := io.Discard
	if testing.Verbose() {
		out = os.Stderr
	}
	w, err := scenario.New(ctx, scenario.Options{Name: "lifecycle", Repo: repo, Tools: []string{"./test/guest/tpm"}, Tell: teller{t}, Log: slog.New(slog.NewTextHandler(out, nil))})
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
