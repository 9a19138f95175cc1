package engine

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// Attack 55, CVE-2022-3500, GHSA-hff2: a panic is that challenge's ERROR, is logged loudly, and
// its sender is not left waiting.
func TestSession_turns_a_panic_into_ERROR(t *testing.T) {
	var log strings.Builder
	e := &Engine{log: slog.New(slog.NewTextHandler(&log, nil)), conf: Config{Lifetime: time.Hour}, workers: make(chan struct{}, 1)}
	c := &attest.Challenge{Nonce: attest.Nonce{1}, Scheme: attest.SchemeHost, Host: "h1", NotAfter: time.Now().Unix() + 60}
	s := &session{e: e, host: &store.Host{ID: "h1"}, challenge: c, expected: []attest.UUID{{1}}}
	reply := make(chan *api.EvidenceReply, 1)
	// An answer that is linked, though its quote does not hold, leads to the store, and there is none.
	ev := &attest.Evidence{Version: attest.EvidenceVersion, Challenge: *c, Host: attest.HostEvidence{ID: "h1"}, Inclusion: attest.Inclusion{Count: 1}}
	o := s.guarded(t.Context(), &answer{evidence: ev, reply: reply})
	if len(reply) != 1 {
		t.Error("the sender of the Evidence waits for ever")
	}
	for _, r := range append(o.Report.VMs, o.Report.Host) {
		if r.State != appraise.Error || len(r.Reasons) != 1 || r.Reasons[0].Code != appraise.CodeInternal {
			t.Errorf("%+v", r)
		}
	}
	if !strings.Contains(log.String(), "panic") || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("log: %s", log.String())
	}
}

func TestWork_gives_up_on_time_when_no_worker_is_free(t *testing.T) {
	e := &Engine{workers: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
	e.workers <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := e.work(ctx, func() error { t.Error("ran"); return nil }); err == nil {
		t.Error("no error")
	}
}
