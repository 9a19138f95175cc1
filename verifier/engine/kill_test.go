package engine

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

var victim = flag.String("victim", "", "be a Verifier on a database that stops at a stage, to be killed: STAGE,FILE-OR-URL")

func TestMain(m *testing.M) {
	flag.Parse()
	if *victim != "" {
		os.Exit(beVictim(*victim))
	}
	os.Exit(m.Run())
}

// beVictim runs a replica that says when it has come to a stage, and goes no further.
func beVictim(what string) int {
	number, database, _ := strings.Cut(what, ",")
	n, err := strconv.Atoi(number)
	if err != nil {
		return 2
	}
	conf := store.Config{Path: database, Chain: Chain}
	if strings.Contains(database, "://") {
		conf.Path, conf.URL = "", database
	}
	ctx := context.Background()
	st, err := store.Open(ctx, conf)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	e, err := newEngine(ctx, Config{Store: st, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Lease: time.Second})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	stop := func(s stage) {
		if int(s) == n {
			fmt.Println("here")
			select {}
		}
	}
	e.stage.Store(&stop)
	if err := e.begin(); err != nil {
		fmt.Println(err)
		return 1
	}
	select {}
}

// kill9 starts a victim and kills it when it has come to a stage.
func kill9(t *testing.T, conf store.Config, at stage) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], fmt.Sprintf("-victim=%d,%s%s", at, conf.Path, conf.URL))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		lines <- line
	}()
	select {
	case line := <-lines:
		if line != "here\n" {
			t.Errorf("the victim said %q", line)
		}
	case <-time.After(30 * time.Second):
		t.Error("the victim did not come so far")
	}
}

// Fault F5: kill -9 while an answer is appraised, before its report is stored and after.
func TestVerifier_killed_by_SIGKILL_leaves_an_answer_that_the_next_one_ends_once(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		for _, at := range []stage{stageAppraise, stageCommit, stageDone} {
			r := w.start()
			h := newHost(t, w.service, fmt.Sprintf("host%d", at), newVM(byte(at)+1))
			w.admit(h)
			h.Serve()
			want(t, r.attest(t, attest.SchemeSEPA, h.Name).VMs[0], appraise.Trusted) // its key is enrolled
			c, err := r.Challenge(t.Context(), "", api.ChallengeRequest{Host: h.ID(), Scheme: attest.SchemeSEPA})
			must(t, err)
			b, err := h.Evidence(c).Encode()
			must(t, err)
			r.end()
			st, err := store.Open(t.Context(), store.Config{Path: w.conf.Path, URL: w.conf.URL})
			must(t, err)
			_, err = st.Take(t.Context(), c.Nonce, h.ID(), b, "a replica that is gone", 0, time.Now())
			must(t, err)
			must(t, st.Close())
			kill9(t, w.conf, at)
			next := w.start()
			var report *api.Report
			w.until("its report", func() bool { report, err = next.st.Report(t.Context(), c.Nonce.String()); return err == nil })
			want(t, report.VMs[0], appraise.Trusted)
			w.ended(next)
			next.end()
		}
	})
}

// Fault F6: who waits is told, what was asked is void, what was known stays known.
func TestClose_tells_who_waits_and_voids_what_was_asked(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		m := newVM(1)
		h := w.host("host1", m)
		want(t, r.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
		held := make(chan *attest.Evidence, 1)
		h.OnSend = func(ev *attest.Evidence) bool { held <- ev; return false }
		asked := make(chan *api.Report, 1)
		go func() {
			report, err := r.Attest(t.Context(), operator(), api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 30})
			if err != nil {
				t.Error(err)
			}
			asked <- report
		}()
		ev := <-held
		start := time.Now()
		r.end()
		if report := <-asked; report == nil || report.VMs[0].State != appraise.Error {
			t.Errorf("a challenge that the Verifier's end cut short: %+v", report)
		}
		if d := time.Since(start); d > 4*time.Second {
			t.Errorf("stopping took %v", d)
		}
		next := w.start()
		b, err := ev.Encode()
		must(t, err)
		if _, err := next.Evidence(t.Context(), "", b); err == nil {
			t.Error("an answer to a void challenge counted")
		}
		h.OnSend = nil
		m.IMA.File("/usr/bin/init", "init")
		report := next.attest(t, attest.SchemeSEPA, "", "vm1")
		want(t, report.VMs[0], appraise.Trusted)
		if report.VMs[0].Entries != 3 {
			t.Errorf("%d entries", report.VMs[0].Entries)
		}
		m.TPM.ResetCount-- // attack 44, over the restart
		want(t, next.attest(t, attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Rollback, appraise.CodeRollback)
	})
}
