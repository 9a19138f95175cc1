package uplink_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/attest/verify"
	"virt-attest/internal/channel"
	"virt-attest/internal/credential"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/host/hosttest"
	"virt-attest/verifier/host/uplink"
	"virt-attest/verifier/host/verdicts"
)

// verifierd is a Verifier on a unix socket: it enrols by real credentials and verifies what it gets.
type verifierd struct {
	t    *testing.T
	path string

	mu       sync.Mutex
	hello    api.HostHello
	hellos   int
	secrets  map[attest.UUID][][]byte // that are waited for
	enrolled map[attest.UUID]bool
	queue    chan attest.Challenge
	asked    map[attest.Nonce]*attest.Challenge
	results  chan error // one for each Evidence
	schedule *api.Schedule
	verdicts []api.HostVerdict
	cursors  []string             // that polls gave
	request  api.ChallengeRequest // the last one
	pulled   int                  // challenges that the host asked for
	refuse   int                  // status for the next requests, 0: none
	srv      *http.Server
}

func newVerifier(t *testing.T, dir string) *verifierd {
	v := &verifierd{
		t: t, path: filepath.Join(dir, "api.sock"), secrets: map[attest.UUID][][]byte{}, enrolled: map[attest.UUID]bool{},
		queue: make(chan attest.Challenge, 64), asked: map[attest.Nonce]*attest.Challenge{}, results: make(chan error, 64),
	}
	t.Cleanup(v.stop)
	return v
}

func (v *verifierd) start() {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/host/hello", v.onHello)
	mux.HandleFunc("GET /api/v1/host/challenges", v.onChallenges)
	mux.HandleFunc("POST /api/v1/host/challenge", v.onChallenge)
	mux.HandleFunc("POST /api/v1/host/evidence", v.onEvidence)
	mux.HandleFunc("POST /api/v1/host/activated", v.onActivated)
	l, err := net.Listen("unix", v.path)
	if err != nil {
		v.t.Fatal(err)
	}
	v.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		status := v.refuse
		v.mu.Unlock()
		if status != 0 {
			http.Error(w, "not now", status)
			return
		}
		mux.ServeHTTP(w, r)
	}), ReadHeaderTimeout: time.Second}
	srv := v.srv
	go func() { _ = srv.Serve(l) }()
}

func (v *verifierd) stop() {
	if v.srv != nil {
		_ = v.srv.Close()
	}
}

func (v *verifierd) do(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func read[T any](t *testing.T, r *http.Request) (out T) {
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = channel.Decode(b, &out)
	}
	if err != nil {
		t.Error(err)
	}
	return out
}

func write(t *testing.T, w http.ResponseWriter, v any) {
	b, err := channel.Encode(v)
	if err != nil {
		t.Error(err)
	}
	_, _ = w.Write(b)
}

// challengeKey makes the activation for a key that is not enrolled yet.
func (v *verifierd) challengeKey(machine attest.UUID, ek, ak []byte) []api.Activation {
	if v.enrolled[machine] || len(ak) == 0 {
		return nil
	}
	name, err := quote.NameOf(ak)
	if err != nil {
		v.t.Error(err)
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	blob, seed, err := credential.Make(rand.Reader, ek, name, secret)
	if err != nil {
		v.t.Error(err)
	}
	v.secrets[machine] = append(v.secrets[machine], secret)
	return []api.Activation{{Machine: machine, CredentialBlob: blob, Secret: seed}}
}

func (v *verifierd) onHello(w http.ResponseWriter, r *http.Request) {
	h := read[api.HostHello](v.t, r)
	v.do(func() {
		v.hello = h
		v.hellos++
		write(v.t, w, api.HostWelcome{ID: api.HostID(h.EK), Activation: v.challengeKey(attest.UUID{}, h.EK, h.AK)})
	})
}

func (v *verifierd) onActivated(_ http.ResponseWriter, r *http.Request) {
	a := read[api.Activated](v.t, r)
	v.do(func() {
		for _, k := range a.Items {
			if !slices.ContainsFunc(v.secrets[k.Machine], func(s []byte) bool { return bytes.Equal(s, k.Secret) }) {
				v.t.Errorf("machine %v: wrong secret", k.Machine)
			}
			v.enrolled[k.Machine] = true
		}
	})
}

func (v *verifierd) onChallenges(w http.ResponseWriter, r *http.Request) {
	enrolled := false
	v.do(func() { enrolled = v.enrolled[attest.UUID{}] })
	if !enrolled {
		http.Error(w, "", http.StatusForbidden)
		return
	}
	list := []attest.Challenge{}
	select {
	case ch := <-v.queue:
		list = append(list, ch)
	case <-r.Context().Done():
	case <-time.After(2 * time.Second):
	}
	p := api.Poll{Challenges: list}
	if c := r.URL.Query().Get("verdicts"); c != "" {
		v.do(func() {
			v.cursors = append(v.cursors, c)
			p.Verdicts, p.Cursor, p.Begin = v.verdicts, "known", c != "known"
			v.verdicts = nil
		})
	}
	v.do(func() { p.Schedule = v.schedule })
	write(v.t, w, p)
}

// onChallenge makes a challenge that the host asks for by itself.
func (v *verifierd) onChallenge(w http.ResponseWriter, r *http.Request) {
	req := read[api.ChallengeRequest](v.t, r)
	ch := &attest.Challenge{Scheme: req.Scheme, Host: req.Host, NotAfter: time.Now().Add(time.Minute).Unix()}
	for _, vm := range req.VMs {
		ch.VMs = append(ch.VMs, vm.UUID)
	}
	_, _ = rand.Read(ch.Nonce[:])
	v.do(func() {
		v.pulled++
		v.request = req
		v.asked[ch.Nonce] = ch
	})
	write(v.t, w, ch)
}

func (v *verifierd) onEvidence(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	ev, err := attest.DecodeEvidence(b)
	if err != nil {
		v.results <- err
		return
	}
	v.do(func() {
		l, err := verify.Evidence(ev, v.asked[ev.Challenge.Nonce], time.Now())
		if err == nil {
			err = l.Err()
		}
		var reply api.EvidenceReply
		for _, vm := range ev.VMs {
			if err == nil {
				reply.Activation = append(reply.Activation, v.challengeKey(vm.UUID, vm.EK, vm.AK)...)
			}
		}
		write(v.t, w, reply)
		v.results <- err
	})
}

// ask queues a challenge and waits for the verdict.
func (v *verifierd) ask(ch *attest.Challenge) error {
	v.do(func() { v.asked[ch.Nonce] = ch })
	v.queue <- *ch
	select {
	case err := <-v.results:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("no answer")
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// connect runs an uplink of the host to the Verifier.
func connect(t *testing.T, h *hosttest.Host, v *verifierd, change ...func(*uplink.Uplink)) *uplink.Uplink {
	u := &uplink.Uplink{
		Name: "kvm1", Host: h.Machine, VMs: h.VMs, Engine: h.Engine, Domains: h.Set, Log: quiet(),
		Connect: func() (uplink.Verifier, error) { return api.NewClient("unix://"+v.path, api.TLS{}) },
	}
	for _, f := range change {
		f(u)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return u
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestRun_enrols_host_and_VMs_and_answers(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	v := newVerifier(t, h.Dir)
	v.start()
	connect(t, h, v)
	for _, s := range []attest.Scheme{attest.SchemeHost, attest.SchemeSEPA, attest.SchemeHYPA} {
		if err := v.ask(h.Challenge(t, s)); err != nil {
			t.Errorf("%v: %v", s, err)
		}
	}
	eventually(t, "the VMs' keys are enrolled by activation", func() (ok bool) {
		v.do(func() { ok = v.enrolled[vms[0].UUID] && v.enrolled[vms[1].UUID] })
		return ok
	})
	if v.hello.Name != "kvm1" || len(v.hello.VMs) != 2 || v.hello.VMs[0].Name == "" {
		t.Errorf("introduced as %q with VMs %v", v.hello.Name, v.hello.VMs)
	}
}

// CVE-2022-1053: a key that lives in another TPM than the endorsement key is not enrolled.
func TestRun_leaves_out_a_machine_that_cannot_open_its_credential(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	v := newVerifier(t, h.Dir)
	v.start()
	vms[0].Do(func(vm *hosttest.VM) {
		vm.Agent = func(ctx context.Context, op uint8, p []byte) ([]byte, error) {
			if op == 3 {
				return nil, errors.New("no")
			}
			return vm.HonestAgent(ctx, op, p)
		}
	})
	connect(t, h, v)
	if err := v.ask(h.Challenge(t, attest.SchemeSEPA)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other VM is enrolled", func() (ok bool) {
		v.do(func() { ok = v.enrolled[vms[1].UUID] })
		return ok
	})
	if v.enrolled[vms[0].UUID] {
		t.Error("enrolled without a proof")
	}
}

// F6, F7, F8: the Verifier comes late, is killed, forgets everything, and answers with errors.
func TestRun_survives_a_Verifier_that_comes_and_goes(t *testing.T) {
	h := hosttest.New(t)
	h.StartVMs(t, 1)
	v := newVerifier(t, h.Dir)
	connect(t, h, v)
	time.Sleep(50 * time.Millisecond) // hostd is first
	v.start()
	if err := v.ask(h.Challenge(t, attest.SchemeSEPA)); err != nil {
		t.Fatalf("after it came late: %v", err)
	}
	v.stop()
	v.do(func() { clear(v.enrolled) })
	v.start()
	if err := v.ask(h.Challenge(t, attest.SchemeSEPA)); err != nil {
		t.Fatalf("after it forgot everything: %v", err)
	}
	v.do(func() { v.refuse = http.StatusServiceUnavailable })
	ch := h.Challenge(t, attest.SchemeHYPA)
	v.do(func() { v.asked[ch.Nonce] = ch })
	v.queue <- *ch
	time.Sleep(200 * time.Millisecond)
	v.do(func() { v.refuse = 0 })
	select {
	case err := <-v.results:
		if err != nil {
			t.Errorf("after errors: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("not answered after errors")
	}
}

func TestRun_tells_the_Verifier_about_new_VMs(t *testing.T) {
	h := hosttest.New(t)
	v := newVerifier(t, h.Dir)
	v.start()
	connect(t, h, v)
	eventually(t, "hello", func() (ok bool) { v.do(func() { ok = v.hellos == 1 }); return ok })
	h.StartVMs(t, 1)
	eventually(t, "hello with the VM", func() (ok bool) { v.do(func() { ok = len(v.hello.VMs) == 1 }); return ok })
}

// F16: a renewed certificate is used without a restart, and answers in the making are delivered.
func TestReconnect_loses_no_answer(t *testing.T) {
	h := hosttest.New(t)
	h.StartVMs(t, 1)
	v := newVerifier(t, h.Dir)
	v.start()
	u := connect(t, h, v)
	if err := v.ask(h.Challenge(t, attest.SchemeSEPA)); err != nil {
		t.Fatal(err)
	}
	h.Delay.Store(int64(300 * time.Millisecond))
	result := make(chan error, 1)
	ch := h.Challenge(t, attest.SchemeSEPA)
	go func() { result <- v.ask(ch) }()
	eventually(t, "taken", func() bool { return len(v.queue) == 0 })
	u.Reconnect()
	if err := <-result; err != nil {
		t.Error(err)
	}
	eventually(t, "second hello", func() (ok bool) { v.do(func() { ok = v.hellos >= 2 }); return ok })
}

func TestRun_takes_verdicts_and_says_at_the_next_Verifier_which_it_has(t *testing.T) {
	h := hosttest.New(t)
	v := newVerifier(t, h.Dir)
	v.verdicts = []api.HostVerdict{{Machine: attest.UUID{1}.String(), State: appraise.Untrusted, Report: "aa"}}
	v.start()
	board := new(verdicts.Board)
	connect(t, h, v, func(u *uplink.Uplink) { u.Board = board })
	eventually(t, "the verdict", func() bool { got, ok := board.Latest(attest.UUID{1}); return ok && got.State == appraise.Untrusted })
	v.stop()
	v.start()
	eventually(t, "the cursor", func() (ok bool) {
		v.do(func() {
			ok = len(v.cursors) > 1 && v.cursors[0] == api.VerdictsBegin && v.cursors[len(v.cursors)-1] == "known"
		})
		return ok
	})
}

func TestAttest_asks_about_the_VMs_that_something_happened_to(t *testing.T) {
	h := hosttest.New(t)
	vms := h.StartVMs(t, 2)
	v := newVerifier(t, h.Dir)
	u := connect(t, h, v)
	if _, err := u.Attest(t.Context(), nil, 0, "found"); !errors.Is(err, uplink.ErrAway) {
		t.Errorf("without a Verifier: %v", err)
	}
	v.start()
	var report string
	eventually(t, "an answer", func() bool {
		var err error
		report, err = u.Attest(t.Context(), []api.HostVM{{UUID: vms[1].UUID, Name: "vm"}}, 0, "agent")
		return err == nil
	})
	select {
	case err := <-v.results:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no answer")
	}
	v.do(func() {
		if r := v.request; r.Why != "agent" || len(r.VMs) != 1 || r.VMs[0].UUID != vms[1].UUID || r.Scheme != attest.SchemeSEPA || len(report) != 64 {
			t.Errorf("%+v, report %q", r, report)
		}
	})
}
