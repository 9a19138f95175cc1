package server

import (
	"context"
	"net/http"
	"sync"

	"virt-attest/verifier/api"
)

// gate bounds how many large bodies are in memory at a time, in all and of one client. Who is
// over the bound waits, behind those of the same client first.
type gate struct {
	slots chan struct{}
	each  int

	mu      sync.Mutex
	clients map[string]*turnstile
}

// turnstile is one client's share of a gate.
type turnstile struct {
	slots chan struct{}
	users int // that hold a slot or wait for one
}

func newGate(total, each int) *gate {
	return &gate{slots: make(chan struct{}, total), each: each, clients: make(map[string]*turnstile)}
}

// enter waits for a slot and gives what returns it.
func (g *gate) enter(ctx context.Context, who string) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, bodyWait)
	defer cancel()
	t := g.join(who)
	select {
	case t.slots <- struct{}{}:
	case <-ctx.Done():
		g.part(who)
		return nil, api.NewProblem(http.StatusTooManyRequests, "%d large requests of this client are under way", g.each)
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		<-t.slots
		g.part(who)
		return nil, api.NewProblem(http.StatusServiceUnavailable, "too many large requests are under way")
	}
	return func() {
		<-g.slots
		<-t.slots
		g.part(who)
	}, nil
}

func (g *gate) join(who string) *turnstile {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.clients[who]
	if t == nil {
		t = &turnstile{slots: make(chan struct{}, g.each)}
		g.clients[who] = t
	}
	t.users++
	return t
}

func (g *gate) part(who string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.clients[who]; t.users == 1 {
		delete(g.clients, who)
	} else {
		t.users--
	}
}
