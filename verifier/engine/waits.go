package engine

import (
	"sync"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// waits are those at this replica who wait for the report of a challenge.
type waits struct {
	mu   sync.Mutex
	of   map[attest.Nonce][]*wait
	host map[string]int // how many wait for a host
	all  int
}

// wait is one who waits.
type wait struct {
	nonce attest.Nonce
	host  string
	woken chan struct{} // holds one token: look again

	mu     sync.Mutex
	report *api.Report // if it was made at this replica
}

// add begins a wait, unless too many wait already. It ends with drop.
func (w *waits) add(n attest.Nonce, host string) (*wait, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all >= maxWaits || w.host[host] >= maxPerHost {
		return nil, false
	}
	if w.of == nil {
		w.of, w.host = make(map[attest.Nonce][]*wait), make(map[string]int)
	}
	x := &wait{nonce: n, host: host, woken: make(chan struct{}, 1)}
	w.of[n] = append(w.of[n], x)
	w.host[host]++
	w.all++
	return x, true
}

func (w *waits) drop(x *wait) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var left []*wait
	for _, y := range w.of[x.nonce] {
		if y != x {
			left = append(left, y)
		}
	}
	if w.of[x.nonce] = left; len(left) == 0 {
		delete(w.of, x.nonce)
	}
	if w.host[x.host]--; w.host[x.host] == 0 {
		delete(w.host, x.host)
	}
	w.all--
}

// wake makes those who wait for a report look for it; r is the report, or nil where only a name came.
func (w *waits) wake(n attest.Nonce, r *api.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.of[n] {
		x.give(r)
	}
}

// wakeAll makes everybody look, as when notifications may have been lost.
func (w *waits) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, list := range w.of {
		for _, x := range list {
			x.give(nil)
		}
	}
}

func (x *wait) give(r *api.Report) {
	if r != nil {
		x.mu.Lock()
		x.report = r
		x.mu.Unlock()
	}
	select {
	case x.woken <- struct{}{}:
	default:
	}
}

// got is the report, where it was made at this replica.
func (x *wait) got() *api.Report {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.report
}
