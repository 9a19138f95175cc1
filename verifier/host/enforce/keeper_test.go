package enforce

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/sealed"
	"virt-attest/internal/sidecarproto"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/host/verdicts"
	"virt-attest/verifier/policy"
)

var (
	vm  = attest.UUID{1}
	mac = "52:54:00:00:00:01"
	off = "52:54:00:00:00:02" // is down before
)

// world is libvirt, a sidecar with its agent, and the Verifier.
type world struct {
	*testing.T
	mu      sync.Mutex
	dom     Domain
	epoch   uint64
	rule    api.Rule
	away    bool
	fail    error
	did     []string
	acts    []api.Act
	files   []string
	changed func(attest.UUID, bool)
	board   *verdicts.Board
	state   string
	asked   func(attest.UUID) string
	allow   Allowed
}

func newWorld(t *testing.T, action string) *world {
	w := &world{T: t, epoch: 3, board: new(verdicts.Board), state: filepath.Join(t.TempDir(), "state.json"), allow: all(),
		dom: Domain{Run: "b/1", Links: []Link{{mac, true}, {off, false}}}}
	w.rule = api.Rule{Machine: vm, Action: action, On: []appraise.State{appraise.Untrusted}, Undo: true, Limit: time.Hour, Otherwise: policy.KeepPaused, Links: policy.AsDefined}
	return w
}

func (w *world) Follow(ctx context.Context, changed func(attest.UUID, bool)) error {
	w.mu.Lock()
	w.changed = changed
	w.mu.Unlock()
	changed(vm, false)
	<-ctx.Done()
	return nil
}

func (w *world) Look(context.Context, attest.UUID) (Domain, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.dom
	d.Links = slices.Clone(d.Links)
	return d, nil
}

func (w *world) Do(_ context.Context, _ attest.UUID, run, action string, links []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil || run != w.dom.Run {
		return errors.Join(w.fail, errors.New("no"))
	}
	w.did = append(w.did, strings.TrimSpace(action+" "+strings.Join(links, " ")))
	switch action {
	case api.ActPause, api.ActResume:
		w.dom.Paused = action == api.ActPause
	case api.ActLinkDown, api.ActLinkUp:
		for i := range w.dom.Links {
			if slices.Contains(links, w.dom.Links[i].MAC) {
				w.dom.Links[i].Up = action == api.ActLinkUp
			}
		}
	case api.ActDestroy:
		w.dom.Run = ""
	}
	return nil
}

func (w *world) Info(context.Context) (*sidecarproto.Info, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &sidecarproto.Info{Epoch: w.epoch, VTPM: sidecarproto.VTPMRunning}, nil
}

func (w *world) Agent(_ context.Context, op uint8, in, out any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch op {
	case agentproto.OpRequest:
		out.(*agentproto.Request).Nonce = bytes.Repeat([]byte{7}, sealed.NonceSize)
	case agentproto.OpSecret:
		w.files = append(w.files, in.(agentproto.Secret).Name)
	}
	return nil
}

func (w *world) Close() {}

func (w *world) Rules(_ context.Context, vms []attest.UUID) (out []api.Rule, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return nil, errors.New("away")
	}
	for range vms {
		out = append(out, w.rule)
	}
	return out, nil
}

func (w *world) Acted(_ context.Context, a api.Act) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return errors.New("away")
	}
	w.acts = append(w.acts, a)
	return nil
}

func (w *world) Release(_ context.Context, _ attest.UUID, epoch uint64, nonce []byte) ([]api.ReleasedSecret, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if epoch != w.epoch || len(nonce) != sealed.NonceSize {
		return nil, errors.New("not released")
	}
	return []api.ReleasedSecret{{Name: "disk"}}, nil
}

func (w *world) verdict(s appraise.State, report string) {
	now := time.Now()
	w.board.Update(&api.Poll{Verdicts: []api.HostVerdict{{Machine: vm.String(), State: s, Epoch: w.epoch, Report: report, Time: now.UnixMilli(), Expires: now.Add(time.Hour).UnixMilli()}}})
}

// hostd runs a Keeper until the function that it gives is called.
func (w *world) hostd() (k *Keeper, stop func()) {
	w.Helper()
	k, err := New(Config{Allow: w.allow, PerMinute: 2, Hypervisor: w, Verifier: w, Board: w.board, State: w.state, Log: slog.New(slog.DiscardHandler),
		VMs: func() []attest.UUID { return []attest.UUID{vm} }, Dial: func(context.Context, attest.UUID) (Sidecar, error) { return w, nil }})
	if err != nil {
		w.Fatal(err)
	}
	if w.asked != nil {
		k.Ask(w.asked)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	return k, func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	}
}

// until waits for what libvirt was asked to do in all.
func (w *world) until(what string, want ...string) {
	w.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		got := strings.Join(w.did, ", ")
		w.mu.Unlock()
		if got == strings.Join(want, ", ") {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("%s: did %q, want %q", what, got, want)
		}
	}
}

func TestKeeper_cuts_pauses_and_gives_back_what_it_took_also_after_a_restart(t *testing.T) {
	w := newWorld(t, policy.CutNetwork)
	w.verdict(appraise.Untrusted, "aa")
	_, stop := w.hostd()
	w.until("untrusted", "link-down "+mac+" "+off)
	stop()
	w.verdict(appraise.Trusted, "bb")
	_, stop = w.hostd()
	w.until("trusted, to another hostd", "link-down "+mac+" "+off, "link-up "+mac)
	if w.dom.Links[1].Up {
		t.Error("a link that was down before is up")
	}
	stop()
}

func TestKeeper_resumes_what_it_paused_and_says_which_VMs_it_holds(t *testing.T) {
	w := newWorld(t, policy.Pause)
	w.verdict(appraise.Untrusted, "cc")
	k, stop := w.hostd()
	defer stop()
	w.until("untrusted", "pause")
	if !k.Held(vm) {
		t.Error("a VM that is paused does not count as held")
	}
	w.verdict(appraise.Trusted, "dd")
	w.until("trusted", "pause", "resume")
}

func TestKeeper_tells_the_Verifier_each_act_once_it_is_back(t *testing.T) {
	w := newWorld(t, policy.Pause)
	_, stop := w.hostd()
	time.Sleep(50 * time.Millisecond) // the rules are known
	stop()
	w.away = true
	w.verdict(appraise.Untrusted, "aa")
	_, stop = w.hostd()
	w.until("paused by the rules that are known", "pause")
	stop()
	w.away = false
	_, stop = w.hostd()
	defer stop()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		acts := slices.Clone(w.acts)
		w.mu.Unlock()
		if len(acts) == 1 {
			if a := acts[0]; a.Action != api.ActPause || a.Why != api.WhyVerdict || a.State != appraise.Untrusted || a.Report != "aa" || a.Machine != vm || a.Problem != "" {
				t.Errorf("%+v", a)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", acts)
		}
	}
}

func TestKeeper_holds_a_VM_at_its_start_by_rules_that_it_knows_though_the_Verifier_is_away(t *testing.T) {
	w := newWorld(t, policy.Report)
	w.rule.Gate = true
	w.dom.Booted = true
	k, stop := w.hostd()
	defer stop()
	time.Sleep(100 * time.Millisecond)
	w.until("what ran when hostd was installed is left alone")
	w.mu.Lock()
	w.away, w.dom.Run, w.epoch = true, "b/2", 4
	w.mu.Unlock()
	k.Changed(vm, true)
	w.until("it starts", "link-down "+mac+" "+off)
	w.verdict(appraise.Trusted, "aa")
	w.until("trusted", "link-down "+mac+" "+off, "link-up "+mac)
}

func TestKeeper_does_nothing_that_it_could_not_undo_after_a_crash(t *testing.T) {
	w := newWorld(t, policy.Pause)
	w.state = filepath.Join(t.TempDir(), "missing", "state.json")
	w.verdict(appraise.Untrusted, "aa")
	_, stop := w.hostd()
	defer stop()
	time.Sleep(200 * time.Millisecond)
	w.until("its state cannot be written")
}

func TestKeeper_refuses_a_state_that_it_cannot_read(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	for _, text := range []string{"", "{", `{"version":2,"vms":{},"rules":{}}`, `{"version":1,"vms":null,"rules":{}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{State: path}); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestKeeper_ends_no_more_VMs_in_a_minute_than_the_host_allows(t *testing.T) {
	k := &Keeper{conf: Config{PerMinute: 2}}
	for i, want := range []bool{true, true, false} {
		if got := k.mayEnd(t0.Add(time.Duration(i) * time.Second)); got != want {
			t.Errorf("%d: %v", i, got)
		}
	}
	if !k.mayEnd(t0.Add(62 * time.Second)) {
		t.Error("a minute later")
	}
}

func TestKeeper_brings_secrets_once_for_a_run_and_only_to_a_trusted_VM(t *testing.T) {
	w := newWorld(t, policy.Report)
	w.rule.Secrets, w.allow = []byte{1}, Allowed{} // no action is allowed on this host: secrets are none
	_, stop := w.hostd()
	defer stop()
	files := func(what string, n int) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			w.mu.Lock()
			got := len(w.files)
			w.mu.Unlock()
			if got == n {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %d deliveries, want %d", what, got, n)
			}
		}
	}
	w.verdict(appraise.Untrusted, "aa")
	time.Sleep(100 * time.Millisecond)
	files("untrusted", 0)
	w.verdict(appraise.Trusted, "bb")
	files("trusted", 1)
	w.verdict(appraise.Trusted, "cc")
	time.Sleep(100 * time.Millisecond)
	files("still trusted", 1)
	w.mu.Lock()
	w.epoch++
	w.mu.Unlock()
	w.verdict(appraise.Trusted, "dd")
	files("trusted after a reboot", 2)
	if len(w.did) != 0 {
		t.Errorf("%v", w.did)
	}
}

// An operator who has only virsh asks for an action in the domain's metadata; it may be harder than the policy's and never milder.
func TestKeeper_does_what_a_domain_asks_for_where_that_is_harder_than_its_policy(t *testing.T) {
	w := newWorld(t, policy.Report)
	asked := make(chan string, 1)
	asked <- policy.Pause
	w.asked = func(attest.UUID) string { a := <-asked; asked <- a; return a }
	k, stop := w.hostd()
	defer stop()
	w.verdict(appraise.Untrusted, "aa")
	w.until("asked for", "pause")
	<-asked
	asked <- ""
	k.Changed(vm, false)
	w.until("asked for no more", "pause", "resume")
	if got := policy.Harder(policy.Shutdown, policy.Pause); got != policy.Shutdown {
		t.Errorf("a domain talks itself out of it: %s", got)
	}
}
