package guestagent

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/ptpm"
)

// port collects frames.
type port struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *port) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *port) events(t *testing.T) (out []uint64) {
	p.mu.Lock()
	r := channel.NewReader(bytes.NewReader(bytes.Clone(p.b.Bytes())), agentproto.MaxPayload)
	p.mu.Unlock()
	for {
		f, err := r.Next()
		if err != nil {
			return out
		}
		var g agentproto.Grown
		if err := channel.Decode(f.Payload, &g); err != nil || f.Kind != channel.Event || f.Op != agentproto.OpGrown {
			t.Errorf("%+v, %v", f, err)
		}
		out = append(out, g.Count)
	}
}

func TestAgent_tells_the_host_of_log_entries_that_nobody_was_given(t *testing.T) {
	a := newAgent(t, ptpm.Device("/nonexistent/tpm"))
	a.files.Count = filepath.Join(t.TempDir(), "count")
	count := func(text string) {
		t.Helper()
		if err := os.WriteFile(a.files.Count+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(a.files.Count+".new", a.files.Count); err != nil {
			t.Fatal(err)
		}
	}
	count("12\n")
	a.shipped.Store(12)
	var p port
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { a.watchGrowth(ctx, &p); close(done) }()
	time.Sleep(3 * growEvery / 2)
	if got := p.events(t); len(got) != 0 {
		t.Errorf("told of what the host has: %v", got)
	}
	count("14\n")
	for end := time.Now().Add(5 * time.Second); len(p.events(t)) == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(3 * growEvery / 2)
	if got := p.events(t); len(got) != 1 || got[0] != 14 {
		t.Errorf("%v, want one event about 14 entries", got)
	}
	cancel()
	<-done
}
