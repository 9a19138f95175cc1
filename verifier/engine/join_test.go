package engine

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// joining is a VM that was never attested, on a host whose answers wait until they are let go.
type joining struct {
	t    *testing.T
	a, b *replica // the same one where there can be one only
	h    *host
	sent atomic.Int32 // answers that the host has made
	let  chan struct{}
	wg   sync.WaitGroup // of the attestations that were begun
}

func newJoining(t *testing.T, w *world) *joining {
	j := &joining{t: t, a: w.start(), let: make(chan struct{})}
	if j.b = j.a; w.conf.URL != "" {
		j.b = w.start()
	}
	j.h = w.host("h1", newVM(1), newVM(2))
	j.h.OnSend = func(*attest.Evidence) bool { j.sent.Add(1); <-j.let; return true }
	return j
}

// begin attests VMs, and waits until the host has its answer ready.
func (j *joining) begin(w *world, scheme attest.Scheme, vms ...string) {
	n := j.sent.Load()
	j.wg.Go(func() { j.a.attest(j.t, scheme, j.h.ID(), vms...) })
	w.until("the host answers", func() bool { return j.sent.Load() > n })
}

// gates asks both replicas and lets the host's answers go when both have had time to ask for more.
func (j *joining) gates(q api.GateRequest) (out []*api.Gate) {
	q.VM = "vm1"
	got := make(chan *api.Gate, 2)
	for _, r := range []*replica{j.a, j.b} {
		go func() {
			g, err := r.Gate(j.t.Context(), operator(), q)
			if err != nil {
				j.t.Error(err)
			}
			got <- g
		}()
	}
	time.Sleep(300 * time.Millisecond)
	close(j.let)
	j.wg.Wait()
	return []*api.Gate{<-got, <-got}
}

// A thousand jobs that start at once ask one question: whoever comes while the VM is attested waits for that answer.
func TestGate_joins_an_attestation_that_is_under_way_at_any_replica(t *testing.T) {
	for name, vms := range map[string][]string{"of all VMs of the host": nil, "of this VM among others": {"vm1", "vm2"}} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, w *world) {
				j := newJoining(t, w)
				j.begin(w, attest.SchemeSEPA, vms...)
				for _, g := range j.gates(api.GateRequest{MaxAge: 60, Timeout: 10}) {
					if g == nil || !g.Trusted || !g.Attested {
						t.Errorf("%+v", g)
					}
				}
				if n := j.sent.Load(); n != 1 {
					t.Errorf("the host was asked %d times", n)
				}
			})
		})
	}
}

func TestGate_begins_its_own_attestation_where_the_one_under_way_would_not_do(t *testing.T) {
	for name, c := range map[string]struct {
		scheme attest.Scheme
		vms    []string
		gate   api.GateRequest
	}{
		"asked for before the Evidence may have been": {attest.SchemeSEPA, nil, api.GateRequest{MaxAge: 0.1, Timeout: 10}},
		"asked for now in any case":                   {attest.SchemeSEPA, nil, api.GateRequest{Timeout: 10}},
		"of another scheme":                           {attest.SchemeSEPA, nil, api.GateRequest{MaxAge: 60, Timeout: 10, Scheme: "hypa"}},
		"of another VM":                               {attest.SchemeSEPA, []string{"vm2"}, api.GateRequest{MaxAge: 60, Timeout: 10}},
		"of the host alone":                           {attest.SchemeHost, nil, api.GateRequest{MaxAge: 60, Timeout: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			w := onSQLite(t)
			j := newJoining(t, w)
			j.begin(w, c.scheme, c.vms...)
			time.Sleep(200 * time.Millisecond)
			for _, g := range j.gates(c.gate) {
				if g == nil || !g.Attested || c.gate.MaxAge != 0.1 && !g.Trusted {
					t.Errorf("%+v", g)
				}
			}
			if n := j.sent.Load(); n < 2 {
				t.Errorf("the host was asked %d times", n)
			}
		})
	}
}

// The host had begun to answer somebody else when it lost the question: within its own time the gate asks again.
func TestGate_asks_itself_where_what_it_joined_comes_to_nothing(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	h := w.host("h1", newVM(1))
	var sent atomic.Int32
	h.OnSend = func(*attest.Evidence) bool { return sent.Add(1) > 1 }
	_, err := r.AttestAsync(t.Context(), operator(), api.AttestRequest{Host: h.ID(), Scheme: attest.SchemeSEPA, Timeout: 60})
	must(t, err)
	w.until("the host has lost it", func() bool { return sent.Load() == 1 })
	began := time.Now()
	g, err := r.Gate(t.Context(), operator(), api.GateRequest{VM: "vm1", MaxAge: 60, Timeout: 4})
	must(t, err)
	if took := time.Since(began); !g.Trusted || g.Result.State != appraise.Trusted || sent.Load() != 2 || took > 5*time.Second {
		t.Errorf("after %v, asked %d times: %+v", took, sent.Load(), g)
	}
}
