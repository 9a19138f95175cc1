package round_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/attest/verify"
	"virt-attest/verifier/host/hosttest"
	"virt-attest/verifier/host/round"
)

// answer makes the evidence and checks it as a Verifier does.
func answer(t testing.TB, h *hosttest.Host, ch *attest.Challenge) (*attest.Evidence, *link.Linked) {
	t.Helper()
	ev, err := h.Engine.Answer(t.Context(), ch)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ev.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := attest.DecodeEvidence(b)
	if err != nil {
		t.Fatal(err)
	}
	l, err := verify.Evidence(got, ch, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return got, l
}

func holds(t testing.TB, l *link.Linked, vms int) {
	t.Helper()
	if err := l.Err(); err != nil || len(l.VMs) != vms {
		t.Errorf("%d VMs, %v", len(l.VMs), err)
	}
}

func TestAnswer_holds_in_every_scheme(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 3)
	for _, c := range []struct {
		scheme attest.Scheme
		ask    []attest.UUID
		vms    int
	}{
		{attest.SchemeHost, nil, 0},
		{attest.SchemeSEPA, nil, 3},
		{attest.SchemeSEPA, []attest.UUID{vms[1].UUID}, 1},
		{attest.SchemeSEPA, []attest.UUID{vms[0].UUID, vms[2].UUID}, 2},
		{attest.SchemeHYPA, nil, 3},
		{attest.SchemeHYPA, []attest.UUID{vms[1].UUID}, 1},
		{attest.SchemeSEPAExact, []attest.UUID{vms[1].UUID}, 1},
	} {
		before := h.Quotes.Load()
		_, l := answer(t, h, h.Challenge(t, c.scheme, c.ask...))
		holds(t, l, c.vms)
		if n := h.Quotes.Load() - before; n != 1 {
			t.Errorf("%v: the pTPM made %d quotes", c.scheme, n)
		}
	}
}

// The pTPM is the bottleneck of a host: it quotes once, however many VMs there are.
func TestAnswer_costs_one_pTPM_quote_for_many_VMs(t *testing.T) {
	h := hosttest.New(t)
	h.StartVMs(t, 60)
	for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
		before := h.Quotes.Load()
		_, l := answer(t, h, h.Challenge(t, s))
		if n := h.Quotes.Load() - before; n != 1 || l.Host.Err != nil || len(l.VMs) != 60 {
			t.Errorf("%v: %d quotes, %d VMs, host %v", s, n, len(l.VMs), l.Host.Err)
		}
	}
}

// Challenges that come while a slow pTPM works share its next quote; each gets its own inclusion.
func TestAnswer_binds_concurrent_challenges_under_one_quote(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	answer(t, h, h.Challenge(t, attest.SchemeHost))
	h.Delay.Store(int64(300 * time.Millisecond))
	before := h.Quotes.Load()
	var group sync.WaitGroup
	for i := range 24 {
		group.Go(func() {
			s := []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA, attest.SchemeHost}[i%3]
			ch := h.Challenge(t, s)
			if s == attest.SchemeSEPA {
				ch.VMs = []attest.UUID{vms[i%2].UUID}
			}
			ev, err := h.Engine.Answer(t.Context(), ch)
			if err != nil {
				t.Error(err)
				return
			}
			l, err := verify.Evidence(ev, ch, time.Now())
			if err == nil {
				err = l.Err()
			}
			if err != nil {
				t.Errorf("%v: %v", s, err)
			}
		})
	}
	group.Wait()
	if n := h.Quotes.Load() - before; n > 4 {
		t.Errorf("24 challenges at once took %d quotes", n)
	}
}

// The paper's composite covers one challenge only.
func TestAnswer_gives_sepa_exact_a_round_of_its_own(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	h.Delay.Store(int64(50 * time.Millisecond))
	before := h.Quotes.Load()
	var group sync.WaitGroup
	for range 3 {
		for _, s := range []attest.Scheme{attest.SchemeSEPAExact, attest.SchemeSEPA} {
			group.Go(func() {
				ch := h.Challenge(t, s, vms[0].UUID)
				ev, err := h.Engine.Answer(t.Context(), ch)
				if err != nil {
					t.Error(err)
					return
				}
				if l, err := verify.Evidence(ev, ch, time.Now()); err != nil || l.Err() != nil {
					t.Errorf("%v: %v, %v", s, err, l.Err())
				}
			})
		}
	}
	group.Wait()
	if n := h.Quotes.Load() - before; n < 4 {
		t.Errorf("%d quotes: exact challenges shared one", n)
	}
}

func TestAnswer_refuses_challenges_that_are_not_for_this_host(t *testing.T) {
	h := hosttest.New(t)
	for name, change := range map[string]func(*attest.Challenge){
		"another host": func(c *attest.Challenge) { c.Host = "0123" },
		"expired":      func(c *attest.Challenge) { c.NotAfter = time.Now().Unix() - 2 },
		"malformed":    func(c *attest.Challenge) { c.Scheme = 9 },
		"exact of all": func(c *attest.Challenge) { c.Scheme = attest.SchemeSEPAExact },
	} {
		ch := h.Challenge(t, attest.SchemeHost)
		change(ch)
		if _, err := h.Engine.Answer(t.Context(), ch); !errors.Is(err, round.ErrChallenge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := h.Quotes.Load(); n != 0 {
		t.Errorf("the pTPM quoted %d times", n)
	}
}
