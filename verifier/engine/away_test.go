package engine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/pgtest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/policy"
)

// onceAt has f done when an attestation first comes to a stage.
func (r *replica) onceAt(at stage, f func()) {
	var done atomic.Bool
	stop := func(s stage) {
		if s == at && done.CompareAndSwap(false, true) {
			f()
		}
	}
	r.stage.Store(&stop)
}

// tried is what an attestation gave, and the nonce that the host answered.
type tried struct {
	report *api.Report
	nonce  attest.Nonce
}

// try attests vm1 while something is wrong: an answer has to come on time, and what it says of the VM is that we failed, that
// nobody answered, or what is right.
func (r *replica) try(t *testing.T, h *host, right appraise.State) tried {
	t.Helper()
	var got tried
	var nonce atomic.Pointer[attest.Nonce]
	h.Mu.Lock()
	h.OnEvid = func(ev *attest.Evidence) { nonce.CompareAndSwap(nil, &ev.Challenge.Nonce) }
	h.Mu.Unlock()
	start := time.Now()
	report, err := r.Attest(t.Context(), operator(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 2})
	if d := time.Since(start); d > 12*time.Second {
		t.Errorf("answered after %v", d)
	}
	if got.report = report; err != nil {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("a fault of ours is told as %v", err)
		}
	} else if s := report.VMs[0].State; s != appraise.Error && s != appraise.Unreachable && s != right {
		t.Errorf("%s: %+v", s, report.VMs[0].Reasons)
	}
	if n := nonce.Load(); n != nil {
		got.nonce = *n
	}
	return got
}

// Fault F9: the database server is gone, or hangs, in the middle of an attestation. Who asked is told that it is the Verifier's fault,
// on time; an answer that was taken has its report when the server is back, and a challenge that nobody took ends.
func TestDatabase_that_is_gone_at_any_stage_is_ERROR_on_time_and_loses_no_answer(t *testing.T) {
	c := pgtest.New(t)
	w := onSQLite(t)
	w.conf.Path, w.conf.URL = "", c.URL(t)
	r := w.start()
	h := w.host("host1", newVM(1))
	want(t, r.attest(t, attest.SchemeSEPA, "host1", "vm1").VMs[0], appraise.Trusted)
	for _, at := range []stage{stagePut, stageTake, stageAppraise, stageCommit, stageDone} {
		t.Run(stages()[at], func(t *testing.T) {
			w.t = t
			gone := make(chan error, 1)
			r.onceAt(at, func() {
				if at != stagePut && at != stageDone {
					time.Sleep(700 * time.Millisecond) // a server that crashes may lose what came within three turns of its WAL writer
				}
				gone <- c.Stop()
			})
			right := appraise.Error
			if at == stageDone {
				right = appraise.Trusted
			}
			got := r.try(t, h, right)
			must(t, <-gone)
			if _, err := r.VM(t.Context(), operator(), "vm1"); !errors.Is(err, ErrUnavailable) {
				t.Errorf("a verdict without a database: %v", err)
			}
			if g, err := r.Gate(t.Context(), operator(), api.GateRequest{VM: "vm1", MaxAge: 3600}); !errors.Is(err, ErrUnavailable) {
				t.Errorf("a gate without a database: %+v, %v", g, err)
			}
			must(t, c.Start(t.Context()))
			w.until("the database is back", func() bool { return r.Ready(t.Context()) == nil })
			w.ended(r)
			w.oneVerdictEach(r)
			if at >= stageTake {
				w.kept(r, got.nonce)
			}
			w.until("a verdict as before", func() bool {
				report, err := r.Attest(t.Context(), operator(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 5})
				return err == nil && report.VMs[0].State == appraise.Trusted
			})
		})
	}
	t.Run("while it hangs", func(t *testing.T) { w.hangs(t, c, r, h) })
}

// signal sends a signal to a database server and all of its processes.
func signal(t *testing.T, c *pgtest.Cluster, s syscall.Signal) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	parent := make(map[int]int)
	for _, path := range all {
		b, err := os.ReadFile(path)
		_, rest, ok := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); err == nil && ok && len(f) > 1 {
			pid, err1 := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			up, err2 := strconv.Atoi(f[1])
			must(t, errors.Join(err1, err2))
			parent[pid] = up
		}
	}
	n := 0
	for pid := range parent {
		for up := parent[pid]; up > 1; up = parent[up] {
			if up == c.PID() {
				n++
				must(t, syscall.Kill(pid, s))
			}
		}
	}
	if n < 2 {
		t.Errorf("%d processes of the database have got the signal", n)
	}
}

// hangs has a database that is there and answers nothing, as behind a network that drops everything.
func (w *world) hangs(t *testing.T, c *pgtest.Cluster, r *replica, h *host) {
	w.t = t
	r.onceAt(stageCommit, func() { signal(t, c, syscall.SIGSTOP) })
	got := r.try(t, h, appraise.Error)
	signal(t, c, syscall.SIGCONT)
	w.ended(r)
	w.oneVerdictEach(r)
	w.kept(r, got.nonce)
	want(t, r.attest(t, attest.SchemeSEPA, "host1", "vm1").VMs[0], appraise.Trusted)
}

// kept checks that an answer that was taken has its report, and its evidence is there to judge it again.
func (w *world) kept(r *replica, n attest.Nonce) {
	w.t.Helper()
	w.until("the report of the answer that was taken", func() bool {
		report, err := r.st.Report(w.t.Context(), n.String())
		return err == nil && (report.VMs[0].State == appraise.Trusted || report.VMs[0].State == appraise.Error)
	})
	if _, err := r.st.Evidence(w.t.Context(), n.String()); err != nil {
		w.t.Errorf("the evidence is lost: %v", err)
	}
}

// CVE-2022-3500, keylime#1888: a verdict runs out by the clock, whether or not anybody was there to notice, and is no better for a
// Verifier that begins anew.
func TestVerdict_runs_out_while_the_database_is_away_and_over_a_restart_CVE_2022_3500(t *testing.T) {
	const life = 2 * time.Second
	stale := func(t *testing.T, r *replica) {
		t.Helper()
		for range 2 { // at once, and ever after
			v, err := r.VM(t.Context(), operator(), "vm1")
			must(t, err)
			want(t, v.Result, appraise.Stale, appraise.CodeExpired)
			host, err := r.Host(t.Context(), operator(), "host1")
			must(t, err)
			want(t, host.Result, appraise.Stale, appraise.CodeExpired)
			list, err := r.VMs(t.Context(), operator(), api.MachineFilter{States: []appraise.State{appraise.Trusted}}, api.Page{})
			if err != nil || list.Total != 0 {
				t.Errorf("a list of what is TRUSTED: %+v, %v", list, err)
			}
			if g, err := r.Gate(t.Context(), operator(), api.GateRequest{VM: "vm1", MaxAge: 3600}); err != nil || g.Trusted {
				t.Errorf("the gate: %+v, %v", g, err)
			}
		}
	}
	attested := func(t *testing.T, w *world, r *replica) (expires time.Time) {
		t.Helper()
		w.t = t
		h := w.host("host1", newVM(1))
		for id, kind := range map[string]policy.Kind{h.ID(): policy.KindHost, h.VMs[0].UUID.String(): policy.KindVM} {
			f := policy.Default(kind)
			f.Name, f.Interval, f.Lifetime = "short-"+h.Name, 0, policy.Duration(life)
			if kind == policy.KindVM {
				f.Name = "short-vm"
			}
			b, err := f.Encode()
			must(t, err)
			w.put(r, api.DocPolicy, f.Name, b, true)
			must(t, r.PutSettings(t.Context(), operator(), id, api.Settings{Policy: f.Name, RIMs: []string{"good"}}))
		}
		report := r.attest(t, attest.SchemeSEPA, "host1")
		want(t, report.VMs[0], appraise.Trusted)
		if left := time.Until(report.VMs[0].Expires); left > life || left <= 0 {
			t.Fatalf("it lives for %v", left)
		}
		h.Mu.Lock()
		h.OnSend = func(*attest.Evidence) bool { return false }
		h.Mu.Unlock()
		return report.VMs[0].Expires
	}
	t.Run("database", func(t *testing.T) {
		c := pgtest.New(t)
		w := onSQLite(t)
		w.conf.Path, w.conf.URL = "", c.URL(t)
		r := w.start()
		expires := attested(t, w, r)
		must(t, c.Stop())
		time.Sleep(time.Until(expires))
		must(t, c.Start(t.Context()))
		w.until("the database is back", func() bool { return r.Ready(t.Context()) == nil })
		stale(t, r)
	})
	t.Run("restart", func(t *testing.T) {
		w := onSQLite(t)
		r := w.start()
		expires := attested(t, w, r)
		r.kill()
		time.Sleep(time.Until(expires))
		stale(t, w.start())
	})
}

const fullDirectory = "ENGINE_TEST_FULL" // where the child of the test below finds a small disk of its own

// Fault F9: the disk with the database file is full, for a while, in the middle of an attestation of a VM that is not
// trusted any more.
func TestDisk_that_is_full_is_a_fault_on_time_and_loses_no_answer(t *testing.T) {
	if dir := os.Getenv(fullDirectory); dir != "" {
		onFullDisk(t, dir)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), fullDirectory+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func onFullDisk(t *testing.T, dir string) {
	must(t, syscall.Mount("none", dir, "tmpfs", 0, "size=16m"))
	w := onSQLite(t)
	w.conf.Path = filepath.Join(dir, "verifier.db")
	r := w.start()
	m := newVM(1)
	h := w.host("host1", m)
	want(t, r.attest(t, attest.SchemeSEPA, "host1", "vm1").VMs[0], appraise.Trusted)
	m.IMA.File("/tmp/evil", "evil")
	ballast := filepath.Join(dir, "ballast")
	fill := func() {
		f, err := os.Create(ballast)
		must(t, err)
		for size := 1 << 20; size > 0; size /= 2 {
			for err = nil; err == nil; {
				_, err = f.Write(make([]byte, size))
			}
		}
		must(t, f.Close())
	}
	for _, at := range []stage{stagePut, stageTake, stageCommit} {
		t.Run(stages()[at], func(t *testing.T) {
			w.t = t
			r.onceAt(at, fill)
			got := r.try(t, h, appraise.Untrusted)
			if _, err := r.NewToken(t.Context(), operator(), api.TokenRequest{Name: "x", Role: api.RoleViewer, TTL: 600}); !errors.Is(err, ErrUnavailable) {
				t.Errorf("a token that is kept nowhere: %v", err)
			}
			must(t, os.Remove(ballast))
			w.ended(r)
			if at >= stageTake {
				report, err := r.st.Report(t.Context(), got.nonce.String())
				must(t, err)
				if s := report.VMs[0].State; s != appraise.Untrusted && s != appraise.Error {
					t.Errorf("the answer that was taken is %s", s)
				}
				if _, err := r.st.Evidence(t.Context(), got.nonce.String()); err != nil {
					t.Errorf("the evidence is lost: %v", err)
				}
			}
			want(t, r.attest(t, attest.SchemeSEPA, "host1", "vm1").VMs[0], appraise.Untrusted, appraise.CodeIMAUnlisted)
		})
	}
}
