package virt

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// The test driver of libvirt has one domain that runs.
func TestControl_acts_on_the_run_that_was_decided_about_and_on_no_other(t *testing.T) {
	id, err := attest.ParseUUID("6695eb01-f6a4-8304-79aa-97f2502e193f")
	if err != nil {
		t.Fatal(err)
	}
	if err := eventLoop(); err != nil {
		t.Fatal(err)
	}
	c := &Control{URI: "test:///default", Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	s := &Source{Log: c.Log}
	loop := make(chan struct{})
	go func() { s.runEvents(ctx); close(loop) }()
	seen, done := make(chan attest.UUID, 16), make(chan error, 1)
	go func() { done <- c.Follow(ctx, func(vm attest.UUID, _ bool) { seen <- vm }) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		<-loop
	}()
	select {
	case vm := <-seen:
		if vm != id {
			t.Errorf("told of %v", vm)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a domain that runs was not told of")
	}
	d, err := c.Look(ctx, id)
	if err != nil || d.Run == "" || d.Paused {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := c.Do(ctx, id, d.Run+"0", api.ActDestroy, nil); err == nil {
		t.Error("another run was destroyed")
	}
	if err := c.Do(ctx, id, d.Run, "kill", nil); err == nil {
		t.Error("an unknown act was done")
	}
	if err := c.Do(ctx, id, d.Run, api.ActPause, nil); err != nil {
		t.Fatal(err)
	}
	if now, err := c.Look(ctx, id); err != nil || !now.Paused || now.Run != d.Run {
		t.Errorf("paused: %+v, %v", now, err)
	}
	if err := c.Do(ctx, id, d.Run, api.ActResume, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Do(ctx, id, d.Run, api.ActDestroy, nil); err != nil {
		t.Fatal(err)
	}
	if now, err := c.Look(ctx, id); err != nil || now.Run != "" {
		t.Errorf("destroyed: %+v, %v", now, err)
	}
	if now, err := c.Look(ctx, attest.UUID{1}); err != nil || now.Run != "" {
		t.Errorf("one that is not there: %+v, %v", now, err)
	}
}
