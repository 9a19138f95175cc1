package evidence_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/attest/quote"
	"virt-attest/attest/verify"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/sidecarproto"
	"virt-attest/internal/tpmtest"
	"virt-attest/verifier/host/hosttest"
)

// ask gets the answer about one VM beside a good one, which must come through whatever the first does.
func ask(t *testing.T, h *hosttest.Host, ch *attest.Challenge, vms []*hosttest.VM) (attest.VMEvidence, link.VMLink) {
	t.Helper()
	ev, err := h.Engine.Answer(t.Context(), ch)
	if err != nil {
		t.Fatal(err)
	}
	l, err := verify.Evidence(ev, ch, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if l.Host.Err != nil {
		t.Errorf("the host's own part: %v", l.Host.Err)
	}
	if len(vms) > 1 {
		if good, ok := l.VM(vms[1].UUID); !ok || good.Err() != nil {
			t.Errorf("another VM suffers: %v", good.Err())
		}
	}
	v, ok := l.VM(vms[0].UUID)
	if !ok {
		t.Fatal("the VM is missing in the answer")
	}
	for _, vm := range ev.VMs {
		if vm.UUID == vms[0].UUID {
			return vm, v
		}
	}
	t.Fatal("the VM is missing in the evidence")
	return attest.VMEvidence{}, v
}

// replaced makes an agent that does op differently and everything else honestly.
func replaced(v *hosttest.VM, op uint8, f func(payload []byte) ([]byte, error)) channel.Handler {
	return func(ctx context.Context, got uint8, payload []byte) ([]byte, error) {
		if got == op {
			return f(payload)
		}
		return v.HonestAgent(ctx, got, payload)
	}
}

var errSulk = errors.New("no, I do not want to")

// What a guest's agent may do wrong or on purpose: the VM has its status, the others do not notice.
func TestBinding_gives_a_status_to_a_guest_that_does_not_answer(t *testing.T) {
	for name, agent := range map[string]channel.Handler{
		"absent": func(context.Context, uint8, []byte) ([]byte, error) {
			return nil, &channel.RemoteError{Code: channel.CodeUnavailable, Message: "no agent"}
		},
		"stuck": func(ctx context.Context, _ uint8, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
		"sulky": func(context.Context, uint8, []byte) ([]byte, error) { return nil, errSulk },
		"noisy": func(context.Context, uint8, []byte) ([]byte, error) {
			return bytes.Repeat([]byte{0xff}, agentproto.MaxPayload), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := hosttest.New(t)
			vms := h.StartVMs(t, 2)
			vms[0].Do(func(v *hosttest.VM) { v.Agent = agent })
			began := time.Now()
			vm, l := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms)
			if vm.Status != attest.VMNoAnswer || vm.Problem == "" || l.Err() == nil {
				t.Errorf("SEPA: status %d, %q, %v", vm.Status, vm.Problem, l.Err())
			}
			// HYPA needs no guest: its vPCRs are there all the same.
			vm, l = ask(t, h, h.Challenge(t, attest.SchemeHYPA), vms)
			if vm.Status != attest.VMQuoted || len(vm.PCRs) != 1 || l.Err() != nil || vm.Problem == "" {
				t.Errorf("HYPA: status %d, %q, %v", vm.Status, vm.Problem, l.Err())
			}
			if took := time.Since(began); took > 4*hosttest.Timeout {
				t.Errorf("took %v", took)
			}
		})
	}
}

// Attacks 1, 2, 9, 11 and 17 as far as the host can show them: what the guest sends is passed on as it is,
// and what the host knows stands beside it.
func TestBinding_shows_both_the_store_and_the_guest_when_they_differ(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	bad := vms[0]
	elsewhere := hosttest.NewVTPM(t, tpmtest.Identity(3)) // the attacker's own machine
	other := hosttest.StartVM(t, h.Path("run"), h.Path("store"), attest.UUID{1}, elsewhere)

	relayed := func(own bool) channel.Handler {
		return replaced(bad, agentproto.OpQuote, func(p []byte) ([]byte, error) {
			if own {
				if _, err := bad.HonestAgent(t.Context(), agentproto.OpQuote, p); err != nil {
					return nil, err
				}
			}
			return other.HonestAgent(t.Context(), agentproto.OpQuote, p)
		})
	}
	bad.Do(func(v *hosttest.VM) { v.Agent = relayed(false) })
	if vm, l := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms); vm.Status != attest.VMNoRecord || len(vm.Quote.Attest) == 0 || l.LinkErr == nil {
		t.Errorf("relayed, no own quote: status %d, %v", vm.Status, l.LinkErr)
	}
	bad.Do(func(v *hosttest.VM) { v.Agent = relayed(true) })
	vm, l := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms)
	if vm.Status != attest.VMQuoted || vm.QuoteHash == vm.Quote.Hash() || vm.QuoteHash.IsZero() || l.LinkErr == nil {
		t.Errorf("relayed beside an own quote: status %d, %v", vm.Status, l.LinkErr)
	}
	bad.Do(func(v *hosttest.VM) {
		v.Agent = replaced(bad, agentproto.OpIdentity, func(p []byte) ([]byte, error) {
			return other.HonestAgent(t.Context(), agentproto.OpIdentity, p)
		})
	})
	// The key is known from before: the lie is not even asked for. After a reboot it is.
	if _, err := bad.Writer.PowerOn("reset"); err != nil {
		t.Fatal(err)
	}
	if vm, l := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms); vm.AKName != nil || l.LinkErr == nil {
		t.Errorf("another machine's key: AK name %v, %v", vm.AKName, l.LinkErr)
	}
	bad.Do(func(v *hosttest.VM) { v.NoRecord, v.Agent = true, nil })
	if vm, l := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms); vm.Status != attest.VMNoRecord || l.LinkErr == nil {
		t.Errorf("no record: status %d, %v", vm.Status, l.LinkErr)
	}
}

// Attack 9: a guest that floods quotes, also over the very nonce, neither hides nor replaces the one that is awaited.
func TestBinding_finds_the_right_record_in_a_flood_of_quotes(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	vms[0].Do(func(v *hosttest.VM) {
		v.Agent = replaced(vms[0], agentproto.OpQuote, func(p []byte) ([]byte, error) {
			var q agentproto.Quote
			if err := channel.Decode(p, &q); err != nil {
				return nil, err
			}
			for i := range 150 { // the store keeps 128 that nobody awaits
				n := bytes.Clone(q.Nonce)
				if i != 75 {
					n[0] ^= byte(i + 1)
				}
				if _, _, err := vms[0].Quote(n, q.Selection); err != nil {
					return nil, err
				}
			}
			return vms[0].HonestAgent(t.Context(), agentproto.OpQuote, p)
		})
	})
	if vm, l := ask(t, h, h.Challenge(t, attest.SchemeSEPA, vms[0].UUID), vms[:1]); l.Err() != nil {
		t.Errorf("status %d, %v", vm.Status, l.Err())
	}
}

func TestBinding_reports_a_damaged_store_for_its_own_VM_only(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms)
	files, err := filepath.Glob(h.Path("store/" + vms[0].UUID.String() + "/*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	vm, l := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms)
	if vm.Status != attest.VMNoRecord || !strings.Contains(vm.Problem, "damaged") || l.LinkErr == nil {
		t.Errorf("status %d, %q, %v", vm.Status, vm.Problem, l.LinkErr)
	}
}

func TestBinding_tells_a_store_that_lost_its_end_from_a_quote_that_was_never_made(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms)
	files, err := filepath.Glob(h.Path("store/" + vms[0].UUID.String() + "/*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	before, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	vms[0].Do(func(v *hosttest.VM) {
		v.Agent = replaced(vms[0], agentproto.OpQuote, func(p []byte) ([]byte, error) {
			out, err := vms[0].HonestAgent(t.Context(), agentproto.OpQuote, p)
			return out, errors.Join(err, os.WriteFile(files[0], before, 0o600))
		})
	})
	vm, l := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms)
	if vm.Status != attest.VMNoRecord || !strings.Contains(vm.Problem, "damaged") || l.LinkErr == nil {
		t.Errorf("cut off: status %d, %q, %v", vm.Status, vm.Problem, l.LinkErr)
	}
}

func TestBinding_gives_a_status_to_a_VM_whose_sidecar_or_vTPM_is_gone(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	check := func(what string) {
		t.Helper()
		for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
			if vm, l := ask(t, h, h.Challenge(t, s), vms); vm.Status != attest.VMNoTPM || vm.Problem == "" || l.LinkErr == nil {
				t.Errorf("%s, %v: status %d, %q", what, s, vm.Status, vm.Problem)
			}
		}
	}
	for _, s := range []sidecarproto.VTPMState{sidecarproto.VTPMOff, sidecarproto.VTPMPowered, sidecarproto.VTPMDead} {
		vms[0].Do(func(v *hosttest.VM) { v.State = s })
		check(string(s))
	}
	vms[0].Do(func(v *hosttest.VM) { v.State = sidecarproto.VTPMRunning })
	vms[0].Do(func(v *hosttest.VM) {
		v.Sidecar = func(ctx context.Context, op uint8, p []byte) ([]byte, error) {
			if op == sidecarproto.OpExpect || op == sidecarproto.OpPCRs {
				go vms[0].Crash() // in the middle of a round
				time.Sleep(50 * time.Millisecond)
			}
			return vms[0].Honest(ctx, op, p)
		}
	})
	vm, _ := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms)
	if vm.Status != attest.VMNoTPM {
		t.Errorf("gone in mid-round: status %d, %q", vm.Status, vm.Problem)
	}
	check("gone, the domain still listed")
	h.Set.SetSidecars([]attest.UUID{vms[1].UUID})
	check("gone, libvirt says it runs")
}

func TestAnswer_names_a_VM_that_does_not_run_here(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	ch := h.Challenge(t, attest.SchemeSEPA, vms[0].UUID, attest.UUID{0xff})
	ev, err := h.Engine.Answer(t.Context(), ch)
	if err != nil || len(ev.VMs) != 2 || ev.VMs[1].Status != attest.VMNotRunning || ev.VMs[0].Status != attest.VMQuoted {
		t.Fatalf("%+v, %v", ev, err)
	}
}

func imaLog(n int) []byte {
	l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	l.Boot()
	for i := range n - 1 {
		l.File("/usr/bin/"+strings.Repeat("x", 100), string(rune(i)))
	}
	return l.Data
}

func TestLogs_leave_out_a_boot_log_that_is_on_record_for_this_boot_only(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	vms[0].Do(func(v *hosttest.VM) { v.IMA, v.BootLog = imaLog(3), []byte("boot log") })
	for _, c := range []struct {
		boot string
		want string
	}{{"boot-1", ""}, {"boot-0", "boot log"}, {"", "boot log"}} {
		ch := h.Challenge(t, attest.SchemeSEPA)
		ch.BootLogs = true
		ch.Resume = []attest.Resume{{Machine: vms[0].UUID, BootID: c.boot, Count: 1, Boot: true}}
		if vm, _ := ask(t, h, ch, vms); string(vm.BootLog) != c.want {
			t.Errorf("the Verifier knows the boot log of %q: %q came", c.boot, vm.BootLog)
		}
	}
}

func TestLogs_come_from_where_the_Verifier_knows_them(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	list := imaLog(1500) // several pieces
	vms[0].Do(func(v *hosttest.VM) { v.IMA, v.BootLog = list, bytes.Repeat([]byte{7}, 150_000) })
	for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
		ch := h.Challenge(t, s)
		ch.BootLogs = true
		vm, l := ask(t, h, ch, vms)
		if l.Err() != nil || vm.IMA.From != 0 || vm.IMA.Count != 1500 || !bytes.Equal(vm.IMA.Data, list) || vm.IMA.BootID != "boot-1" || len(vm.BootLog) != 150_000 {
			t.Errorf("%v: whole log: %v, %d entries from %d, boot log %d", s, l.Err(), vm.IMA.Count, vm.IMA.From, len(vm.BootLog))
		}
		ch = h.Challenge(t, s)
		ch.Resume = []attest.Resume{{Machine: vms[0].UUID, BootID: "boot-1", Count: 1490}}
		if vm, _ = ask(t, h, ch, vms); vm.IMA.From != 1490 || vm.IMA.Count != 10 || !bytes.HasSuffix(list, vm.IMA.Data) || vm.BootLog != nil {
			t.Errorf("%v: increment: %d entries from %d", s, vm.IMA.Count, vm.IMA.From)
		}
		ch = h.Challenge(t, s)
		ch.Resume = []attest.Resume{{Machine: vms[0].UUID, BootID: "boot-1", Count: 1510}} // before an earlier state was brought back
		if vm, _ = ask(t, h, ch, vms); vm.IMA.From != 0 || vm.IMA.Count != 1500 || !bytes.Equal(vm.IMA.Data, list) {
			t.Errorf("%v: shorter than known: %d entries from %d", s, vm.IMA.Count, vm.IMA.From)
		}
		ch = h.Challenge(t, s)
		ch.Resume = []attest.Resume{{Machine: vms[0].UUID, BootID: "boot-0", Count: 1490}}
		if vm, _ = ask(t, h, ch, vms); vm.IMA.From != 0 || vm.IMA.Count != 1500 {
			t.Errorf("%v: another boot: %d entries from %d", s, vm.IMA.Count, vm.IMA.From)
		}
		if vm.Agent.Version != "test" || vm.Agent.Kernel != "6.1" {
			t.Errorf("%v: agent %+v", s, vm.Agent)
		}
	}
}

// Hostile sizes, numbers and texts out of a guest (F: evidence bombs): the answer stays whole and bounded.
func TestLogs_bound_what_a_guest_sends(t *testing.T) {
	piece := func(k agentproto.LogChunk) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) { return channel.Encode(k) }
	}
	data := bytes.Repeat([]byte{1}, 60_000)
	for name, c := range map[string]struct {
		op uint8
		f  func([]byte) ([]byte, error)
	}{
		"without end, all the same": {agentproto.OpIMA, piece(agentproto.LogChunk{BootID: "b", Count: 10, Data: data, More: true, TemplateHash: attest.SHA1})},
		"gaps":                      {agentproto.OpIMA, piece(agentproto.LogChunk{BootID: "b", From: 1 << 63, Count: 1, Data: data, TemplateHash: attest.SHA1})},
		"more entries than bytes":   {agentproto.OpIMA, piece(agentproto.LogChunk{BootID: "b", Count: 1 << 62, Data: data[:5], TemplateHash: attest.SHA1})},
		"unknown hash":              {agentproto.OpIMA, piece(agentproto.LogChunk{BootID: "b", Count: 1, Data: data, TemplateHash: 77})},
		"boot ID without end":       {agentproto.OpIMA, piece(agentproto.LogChunk{BootID: strings.Repeat("b", 60_000), Count: 1, Data: data[:9], TemplateHash: attest.SHA1})},
		"control characters": {agentproto.OpHello, func([]byte) ([]byte, error) {
			return channel.Encode(agentproto.Hello{Version: "\x1b[2J", Kernel: strings.Repeat("é", 9000)})
		}},
		"huge key":         {agentproto.OpIdentity, func([]byte) ([]byte, error) { return channel.Encode(agentproto.Identity{AK: data}) }},
		"no key":           {agentproto.OpIdentity, func([]byte) ([]byte, error) { return channel.Encode(agentproto.Identity{}) }},
		"huge quote":       {agentproto.OpQuote, func([]byte) ([]byte, error) { return channel.Encode(agentproto.Quoted{Parameters: data}) }},
		"no PCR values":    {agentproto.OpQuote, func([]byte) ([]byte, error) { return channel.Encode(agentproto.Quoted{Parameters: data[:200]}) }},
		"endless boot log": {agentproto.OpBootLog, piece(agentproto.LogChunk{Count: 60_000, Data: data, More: true})},
	} {
		t.Run(name, func(t *testing.T) {
			h := hosttest.New(t)
			vms := h.StartVMs(t, 2)
			vms[0].Do(func(v *hosttest.VM) { v.Agent = replaced(v, c.op, c.f) })
			for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
				ch := h.Challenge(t, s)
				ch.BootLogs = true
				vm, _ := ask(t, h, ch, vms)
				if len(vm.IMA.Data) > 2*len(data) || len(vm.BootLog) > attest.MaxBootLog || strings.ContainsRune(vm.Agent.Version, '\x1b') {
					t.Errorf("%v: %d bytes of IMA log, %d of boot log, %q", s, len(vm.IMA.Data), len(vm.BootLog), vm.Agent.Version)
				}
			}
		})
	}
}

// The epoch is part of what the pTPM signs: it is the one in which the quote was made.
func TestBinding_names_the_epoch_of_the_quote(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	for want := uint64(1); want < 4; want++ {
		for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
			if vm, l := ask(t, h, h.Challenge(t, s), vms); vm.Epoch != want || l.Err() != nil {
				t.Errorf("%v: epoch %d, want %d; %v", s, vm.Epoch, want, l.Err())
			}
		}
		if _, err := vms[0].Writer.PowerOn("reset"); err != nil {
			t.Fatal(err)
		}
	}
}

// An earlier state that was restored is signed as such, by every scheme, until the next start.
func TestBinding_says_of_a_VM_that_an_earlier_state_of_it_was_restored(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	w := vms[0].Writer
	state := attest.Digest{1}
	if err := errors.Join(w.Taken(state), w.Used()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []attest.VMStatus{attest.VMRolledBack, attest.VMQuoted} {
		cause := "reset"
		if want == attest.VMRolledBack {
			cause = w.Restoring(state)
		}
		if _, err := w.PowerOn(cause); err != nil {
			t.Fatal(err)
		}
		for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
			vm, l := ask(t, h, h.Challenge(t, s), vms)
			if rolled := errors.Is(l.LinkErr, &link.Error{Kind: link.KindRollback}); vm.Status != want || rolled != (want == attest.VMRolledBack) {
				t.Errorf("%v after %s: status %d, %v", s, cause, vm.Status, l.LinkErr)
			}
		}
	}
}

// The state may be brought back while the VM is being asked: the same process of QEMU's can load a snapshot.
func TestBinding_notices_an_earlier_state_that_is_restored_meanwhile(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	w := vms[0].Writer
	state := attest.Digest{1}
	if err := errors.Join(w.Taken(state), w.Used()); err != nil {
		t.Fatal(err)
	}
	revert := func() error { _, err := w.PowerOn(w.Restoring(state)); return err }
	vms[0].Do(func(v *hosttest.VM) {
		v.Agent = replaced(v, agentproto.OpQuote, func(p []byte) ([]byte, error) {
			if err := revert(); err != nil {
				return nil, err
			}
			return v.HonestAgent(t.Context(), agentproto.OpQuote, p)
		})
	})
	if vm, _ := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms); vm.Status != attest.VMRolledBack {
		t.Errorf("SEPA: status %d: %s", vm.Status, vm.Problem)
	}
}

func TestBinding_never_names_a_key_that_is_unfit(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	vms[0].Do(func(v *hosttest.VM) {
		v.Agent = replaced(v, agentproto.OpIdentity, func([]byte) ([]byte, error) {
			return channel.Encode(agentproto.Identity{AK: []byte("not a key")})
		})
	})
	vm, l := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms)
	var q *quote.Error
	if vm.AKName != nil || !errors.As(l.QuoteErr, &q) || q.Kind != quote.KindAK {
		t.Errorf("AK name %v, %v", vm.AKName, l.QuoteErr)
	}
}

// The sidecar knows which swtpm runs. It is asked once for each power-on, for the answer costs a process.
func TestLogs_name_what_serves_the_VM_and_ask_again_only_after_a_power_on(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 1)
	answered := 0
	says := func(s *sidecarproto.Software) {
		vms[0].Do(func(v *hosttest.VM) {
			v.Software = s
			v.Sidecar = func(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
				if op == sidecarproto.OpSoftware {
					answered++
				}
				return v.Honest(ctx, op, payload)
			}
		})
	}
	expect := func(name string, asked int, want ...attest.Software) {
		t.Helper()
		for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
			if vm, l := ask(t, h, h.Challenge(t, s), vms); !slices.Equal(vm.Software, want) || l.Err() != nil || vm.Problem != "" {
				t.Errorf("%s, %v: %v, want %v; %v %q", name, s, vm.Software, want, l.Err(), vm.Problem)
			}
		}
		if answered != asked {
			t.Errorf("%s: asked %d times, want %d", name, answered, asked)
		}
	}
	old, new := attest.Software{Name: "swtpm", Version: "0.7.1"}, attest.Software{Name: "swtpm", Version: "0.10.0"}
	says(nil)
	expect("a sidecar of before", 2)
	says(&sidecarproto.Software{Programs: []attest.Software{old}, Problem: "swtpm --version: killed"})
	expect("not all of it", 4, old)
	says(&sidecarproto.Software{Programs: []attest.Software{old}})
	expect("all of it", 5, old)
	says(&sidecarproto.Software{Programs: []attest.Software{new}})
	expect("known already", 5, old)
	if _, err := vms[0].Writer.PowerOn("reset"); err != nil {
		t.Fatal(err)
	}
	expect("powered on anew", 6, new)
	if _, err := vms[0].Writer.PowerOn("reset"); err != nil {
		t.Fatal(err)
	}
	says(&sidecarproto.Software{Programs: make([]attest.Software, attest.MaxVMSoftware+1)})
	expect("more than a VM has", 8)
	says(&sidecarproto.Software{Programs: []attest.Software{{Name: "swtpm", Version: "\x1b[2J"}}})
	vm, _ := ask(t, h, h.Challenge(t, attest.SchemeSEPA), vms)
	if len(vm.Software) != 1 || strings.ContainsRune(vm.Software[0].Version, '\x1b') {
		t.Errorf("%q", vm.Software)
	}
}
