package evaluate

import (
	"bytes"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
	"virt-attest/verifier/appraise"
)

var (
	t0  = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	vm1 = attest.UUID{1}
)

func result(id attest.UUID, s appraise.State, expires time.Time) appraise.Result {
	r := appraise.Result{UUID: id, Host: "h1", State: s, Expires: expires}
	if s != appraise.Trusted {
		r.Reasons = []appraise.Reason{{Code: appraise.CodeIMAUnlisted, Text: "why"}}
	}
	return r
}

func TestCurrent_never_shows_more_trust_than_there_is_now(t *testing.T) {
	fresh, old := t0.Add(time.Minute), t0.Add(-time.Second)
	for _, c := range []struct {
		name     string
		vm, host appraise.Result
		want     appraise.State
		code     appraise.Code
	}{
		{"both fresh", result(vm1, appraise.Trusted, fresh), result(attest.UUID{}, appraise.Trusted, fresh), appraise.Trusted, ""},
		{"VM expired", result(vm1, appraise.Trusted, old), result(attest.UUID{}, appraise.Trusted, fresh), appraise.Stale, appraise.CodeExpired},
		{"expires now", result(vm1, appraise.Trusted, t0), result(attest.UUID{}, appraise.Trusted, fresh), appraise.Stale, appraise.CodeExpired},
		{"host expired", result(vm1, appraise.Trusted, fresh), result(attest.UUID{}, appraise.Trusted, old), appraise.Stale, appraise.CodeHostNotTrusted},
		{"host untrusted since", result(vm1, appraise.Trusted, fresh), result(attest.UUID{}, appraise.Untrusted, fresh), appraise.Untrusted, appraise.CodeHostNotTrusted},
		{"host rolled back since", result(vm1, appraise.Trusted, fresh), result(attest.UUID{}, appraise.Rollback, fresh), appraise.Untrusted, appraise.CodeHostNotTrusted},
		{"host unreachable since", result(vm1, appraise.Trusted, fresh), result(attest.UUID{}, appraise.Unreachable, fresh), appraise.Unreachable, appraise.CodeHostNotTrusted},
		{"fault of ours since", result(vm1, appraise.Trusted, fresh), result(attest.UUID{}, appraise.Error, fresh), appraise.Error, appraise.CodeHostNotTrusted},
		{"host forgotten", result(vm1, appraise.Trusted, fresh), appraise.Result{}, appraise.Pending, appraise.CodeHostNotTrusted},
		{"an old verdict against it stands", result(vm1, appraise.Untrusted, old), result(attest.UUID{}, appraise.Trusted, fresh), appraise.Untrusted, appraise.CodeIMAUnlisted},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Current(c.vm, c.host, t0)
			if got.State != c.want || (c.code == "") != (len(got.Reasons) == 0) || c.code != "" && got.Reasons[0].Code != c.code {
				t.Errorf("%s %+v", got.State, got.Reasons)
			}
		})
	}
}

func state(t testing.TB, reset uint32, clock, epoch, count uint64, boot string) []byte {
	t.Helper()
	m := appraise.Machine{Epoch: epoch, Replay: measurement.State{BootID: boot, Count: count}}
	if reset != 0 {
		m.Counters = &appraise.Counters{AK: attest.Name("ak"), Reset: reset, Clock: clock}
	}
	b, err := appraise.EncodeMachine(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLater_does_not_let_an_answer_that_was_overtaken_win(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b []byte
		want bool
	}{
		{"later in one boot", state(t, 3, 10, 1, 5, "b"), state(t, 3, 20, 1, 5, "b"), true},
		{"earlier in one boot", state(t, 3, 20, 1, 9, "b"), state(t, 3, 10, 1, 5, "b"), false},
		{"an earlier boot", state(t, 4, 10, 2, 1, "c"), state(t, 3, 90, 1, 9, "b"), false},
		{"without quotes, more entries", state(t, 0, 0, 1, 5, "b"), state(t, 0, 0, 1, 6, "b"), true},
		{"without quotes, fewer entries", state(t, 0, 0, 1, 6, "b"), state(t, 0, 0, 1, 5, "b"), false},
		{"without quotes, a later boot", state(t, 0, 0, 1, 6, "b"), state(t, 0, 0, 2, 1, "c"), true},
		{"without quotes, an earlier boot", state(t, 0, 0, 2, 1, "c"), state(t, 0, 0, 1, 6, "b"), false},
		{"the record was deleted meanwhile", nil, state(t, 3, 10, 1, 5, "b"), false},
		{"unreadable", []byte("{"), state(t, 3, 10, 1, 5, "b"), false},
	} {
		if got := Later(c.a, c.b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// sample is an Evidence with an increment of a log, and the log before it.
func sample() (*attest.Evidence, attest.LogSegment) {
	ima := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	ima.Boot()
	for _, f := range []string{"/a", "/b", "/c"} {
		ima.File(f, f)
	}
	seg := ima.Segment("boot")
	ev := &attest.Evidence{Version: attest.EvidenceVersion, Inclusion: attest.Inclusion{Count: 1},
		Challenge: attest.Challenge{Nonce: attest.Nonce{1}, Scheme: attest.SchemeHYPA, Host: "h1", NotAfter: t0.Unix(),
			Resume: []attest.Resume{{Machine: vm1, BootID: "boot", Count: 2}}},
		Host: attest.HostEvidence{ID: "h1", IMA: seg},
		VMs:  []attest.VMEvidence{{UUID: vm1, Status: attest.VMQuoted, IMA: measuretest.Cut(seg, 2, seg.Count)}}}
	return ev, seg
}

func TestReceived_undoes_Whole(t *testing.T) {
	for name, change := range map[string]func(*attest.Evidence){
		"an increment": func(*attest.Evidence) {},
		"nothing new": func(ev *attest.Evidence) {
			l := &ev.VMs[0].IMA
			l.From, l.Count, l.Data = 4, 0, nil
			ev.Challenge.Resume[0].Count = 4
		},
		"whole though it was not asked": func(ev *attest.Evidence) { ev.VMs[0].IMA = ev.Host.IMA },
		"without the boot log": func(ev *attest.Evidence) {
			ev.Challenge.BootLogs, ev.Challenge.Resume[0].Boot = true, true
		},
		"without the boot log, the other whole": func(ev *attest.Evidence) {
			ev.Challenge.BootLogs, ev.Challenge.Resume[0].Boot = true, true
			ev.VMs[0].IMA = ev.Host.IMA
		},
		"with the boot log though it was not asked": func(ev *attest.Evidence) {
			ev.Challenge.BootLogs, ev.Challenge.Resume[0].Boot = true, true
			ev.VMs[0].BootLog = []byte("another boot log")
		},
		"without a boot log that is not kept": func(ev *attest.Evidence) {
			ev.Challenge.BootLogs, ev.Challenge.Resume[0].Boot = true, true
			ev.Challenge.Resume = append([]attest.Resume{{BootID: "boot", Boot: true}}, ev.Challenge.Resume...)
		},
		"a new boot in place of the rest": func(ev *attest.Evidence) { ev.VMs[0].IMA = ev.Host.IMA; ev.VMs[0].IMA.BootID = "boot-2" },
	} {
		t.Run(name, func(t *testing.T) {
			ev, log := sample()
			change(ev)
			sent, boot := ev.VMs[0].IMA, ev.VMs[0].BootLog
			whole, err := Whole(ev, func(_ attest.UUID, _ string, end uint64) (*attest.LogSegment, error) {
				l := measuretest.Cut(log, 0, end)
				return &l, nil
			}, func(machine attest.UUID, bootID string) ([]byte, error) {
				if machine != vm1 || bootID != "boot" {
					return nil, nil // not kept
				}
				return []byte("the boot log"), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if l := whole.VMs[0].IMA; l.From != 0 || l.Count != sent.From+sent.Count {
				t.Errorf("not whole: %d entries from %d", l.Count, l.From)
			}
			if l := whole.VMs[0]; l.IMA.BootID == "boot" && ev.Challenge.BootLogs && len(l.BootLog) == 0 {
				t.Error("no boot log")
			}
			if err := whole.Challenge.Check(); err != nil {
				t.Error(err)
			}
			again, err := Received(whole)
			if err != nil {
				t.Fatal(err)
			}
			if l := again.VMs[0].IMA; l.From != sent.From || l.Count != sent.Count || !bytes.Equal(l.Data, sent.Data) {
				t.Errorf("%d entries from %d, were %d from %d", l.Count, l.From, sent.Count, sent.From)
			}
			if b := again.VMs[0].BootLog; !bytes.Equal(b, boot) || len(again.Host.BootLog) != 0 {
				t.Errorf("boot logs %q and %q", b, again.Host.BootLog)
			}
		})
	}
}

func FuzzVerifySaved(f *testing.F) {
	ev, log := sample()
	ev.VMs[0].IMA = log
	for _, scheme := range []attest.Scheme{attest.SchemeHYPA, attest.SchemeSEPA, attest.SchemeHost} {
		ev.Challenge.Scheme = scheme
		if scheme == attest.SchemeHost {
			ev.VMs, ev.Challenge.Resume = nil, nil
		}
		b, err := ev.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := VerifySaved(b, Anchors{}, nil, appraise.Policy{}, t0)
		if err != nil {
			return
		}
		for _, res := range append(r.VMs, r.Host) {
			if res.State == appraise.Trusted {
				t.Errorf("trusted without anchors and reference values: %+v", res)
			}
		}
	})
}
