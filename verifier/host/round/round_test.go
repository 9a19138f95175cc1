package round_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/attest/verify"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmkeys"
	"virt-attest/verifier/host/hosttest"
	"virt-attest/verifier/host/machine"
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
	h.Delay.Store(int64(600 * time.Millisecond))
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

// A stuck VM costs the challenges that ask for it its deadline, and the others nothing.
func TestAnswer_does_not_wait_for_a_slow_VM_that_was_not_asked_for(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	answer(t, h, h.Challenge(t, attest.SchemeSEPA, vms[1].UUID))
	stuck := make(chan struct{}, 8)
	vms[0].Do(func(v *hosttest.VM) {
		v.Agent = func(ctx context.Context, _ uint8, _ []byte) ([]byte, error) {
			stuck <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	slow := make(chan time.Duration, 1)
	go func() {
		began := time.Now()
		if _, err := h.Engine.Answer(t.Context(), h.Challenge(t, attest.SchemeSEPA)); err != nil {
			t.Error(err)
		}
		slow <- time.Since(began)
	}()
	<-stuck
	began := time.Now()
	for range 5 {
		_, l := answer(t, h, h.Challenge(t, attest.SchemeSEPA, vms[1].UUID))
		holds(t, l, 1)
	}
	if took := time.Since(began); took > hosttest.Timeout*2/3 {
		t.Errorf("five answers about another VM took %v", took)
	}
	if took := <-slow; took > 2*hosttest.Timeout {
		t.Errorf("the stuck VM held its own challenge for %v", took)
	}
}

func TestAnswer_bounds_the_challenges_that_wait(t *testing.T) {
	h := hosttest.New(t)
	answer(t, h, h.Challenge(t, attest.SchemeHost))
	h.Delay.Store(int64(200 * time.Millisecond))
	var group sync.WaitGroup
	var busy atomic.Int64
	ch := h.Challenge(t, attest.SchemeHost)
	for range 3 * round.MaxWaiting {
		group.Go(func() {
			if _, err := h.Engine.Answer(t.Context(), ch); errors.Is(err, round.ErrBusy) {
				busy.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if busy.Load() == 0 {
		t.Error("nothing was refused")
	}
	answer(t, h, h.Challenge(t, attest.SchemeHost)) // and then there is room again
}

func TestAnswer_ends_with_its_challenge(t *testing.T) {
	h := hosttest.New(t)
	ch := h.Challenge(t, attest.SchemeHost)
	ch.NotAfter = time.Now().Unix() + 1
	h.Delay.Store(int64(3 * time.Second))
	began := time.Now()
	if _, err := h.Engine.Answer(t.Context(), ch); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 2500*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// F10: the physical TPM is reset, taken away, or used by somebody else meanwhile.
func TestAnswer_recovers_when_the_physical_TPM_does(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	check := func(what string) {
		t.Helper()
		_, l := answer(t, h, h.Challenge(t, attest.SchemeSEPA, vms[0].UUID))
		if err := l.Err(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("at first")
	h.PTPM.PowerCycle(t)
	check("after a reset, which unloads its key")
	c, err := h.PTPM.Dial()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tpmkeys.FlushTransient(c), c.Close()); err != nil {
		t.Fatal(err)
	}
	check("after another user has unloaded everything")
	h.PTPM.PowerOff(t)
	if _, err := h.Engine.Answer(t.Context(), h.Challenge(t, attest.SchemeHost)); err == nil {
		t.Error("an answer without a TPM")
	}
	h.PTPM.PowerCycle(t)
	check("after it was away")
}

// F5: killed between quote and answer. What is left behind is a loaded key, and nothing is answered
// twice: the next hostd knows of no challenge.
func TestAnswer_works_after_runs_that_were_killed(t *testing.T) {
	h := hosttest.New(t)
	for range 5 { // a TPM has room for three keys
		killed := machine.NewTPM(ptpm.Socket(h.PTPM.Path()), hosttest.PCRs, slog.New(slog.DiscardHandler))
		if _, _, err := killed.Quote(t.Context(), [32]byte{1}, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, l := answer(t, h, h.Challenge(t, attest.SchemeHost))
	holds(t, l, 0)
}

// The host's own log explains its quote: it is read after it, by increments.
func TestAnswer_carries_the_hosts_own_logs(t *testing.T) {
	h := hosttest.New(t)
	list := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	list.Boot()
	for i := range 600 {
		list.File(fmt.Sprintf("/usr/bin/%d", i), "x")
	}
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(h.Path(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("boot_id", []byte("abc\n"))
	write("boot", []byte("log"))
	write("ima", list.Data[:len(list.Data)-3]) // the kernel is writing
	ask := func(boot string, count uint64) attest.HostEvidence {
		t.Helper()
		ch := h.Challenge(t, attest.SchemeHost)
		ch.BootLogs = true
		ch.Resume = []attest.Resume{{BootID: boot, Count: count}}
		ev, l := answer(t, h, ch)
		holds(t, l, 0)
		return ev.Host
	}
	if got := ask("", 0); got.IMA.Count != 600 || got.IMA.BootID != "abc" || string(got.BootLog) != "log" || got.IMA.TemplateHash != attest.SHA1 {
		t.Errorf("%d entries of %q, boot log %q", got.IMA.Count, got.IMA.BootID, got.BootLog)
	}
	ch := h.Challenge(t, attest.SchemeHost)
	ch.BootLogs, ch.Resume = true, []attest.Resume{{BootID: "abc", Count: 5, Boot: true}}
	if ev, _ := answer(t, h, ch); ev.Host.BootLog != nil {
		t.Errorf("a boot log that is on record came again: %q", ev.Host.BootLog)
	}
	write("ima", list.Data)
	for _, c := range []struct {
		boot        string
		count, from uint64
	}{{"abc", 600, 600}, {"abc", 0, 0}, {"abc", 255, 255}, {"abc", 256, 256}, {"abc", 601, 601}, {"abc", 602, 0}, {"old", 600, 0}} {
		got := ask(c.boot, c.count).IMA
		if got.From != c.from || got.From+got.Count != 601 || !bytes.HasSuffix(list.Data, got.Data) {
			t.Errorf("resume %+v: %d entries from %d", c, got.Count, got.From)
		}
	}
	write("boot_id", []byte("def\n")) // a new boot, a new list
	write("ima", list.Data[:0])
	if got := ask("abc", 601).IMA; got.From != 0 || got.Count != 0 || got.BootID != "def" {
		t.Errorf("another boot: %d entries from %d of %q", got.Count, got.From, got.BootID)
	}
	if sw := ask("", 0).Software; len(sw) < 2 || sw[0].Name != "virt-attest" || sw[1].Name != "kernel" {
		t.Errorf("software %v", sw)
	}
	write("ima", []byte("this is no list at all, and a long one"))
	if got := ask("", 0).IMA; got.Count != 0 {
		t.Errorf("%d entries out of nonsense", got.Count)
	}
}
