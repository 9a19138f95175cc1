package metadata

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/lifecycle"
	"virt-attest/verifier/host/verdicts"
)

var vm1 = attest.UUID{1}

func TestParse_reads_elements_as_libvirt_gives_them(t *testing.T) {
	for text, want := range map[string]string{
		`<request scheme="sepa"/>`:                                                                      "request sepa fresh",
		`<attest:request scheme="hypa" fresh="no"/>`:                                                    "request hypa",
		`<attest:attest:request xmlns:attest="u"/>`:                                                     "request  fresh",
		`<policy interval="30" action="pause" rim="b, a,b"/>`:                                           `policy <policy interval="30s" action="pause" rim="a,b"/>`,
		`<attestation state="TRUSTED"><policy scheme="hypa"/><reason code="x">y</reason></attestation>`: `shown policy <policy scheme="hypa"/>`,
	} {
		e, err := Parse(text)
		got := ""
		if e.Request != nil {
			got = "request "
			if e.Request.Scheme != 0 {
				got += e.Request.Scheme.String()
			}
			if e.Request.Fresh {
				got += " fresh"
			}
		}
		if e.Shown {
			got += "shown "
		}
		if e.Policy != nil {
			got += "policy " + FormatPolicy(*e.Policy)
		}
		if err != nil || strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestParse_refuses_what_asks_for_less_or_for_what_there_is_not(t *testing.T) {
	for _, text := range []string{
		"", "x", "<request", `<request scheme="sepa-exact"/>`, `<request schema="sepa"/>`, `<request><policy/></request>`, `<policy interval="1s"/>`, `<policy interval="25h"/>`,
		`<policy action="release"/>`, `<policy rim=","/>`, `<trust/>`, `<!DOCTYPE a [<!ENTITY b "c">]><request/>`, `<request/><request`,
		strings.Repeat("<attestation>", 20), "<attestation>" + strings.Repeat("x", maxElement) + "</attestation>",
	} {
		if e, err := Parse(text); !errors.Is(err, ErrElement) {
			t.Errorf("%.60s: %+v, %v", text, e, err)
		}
	}
}

func TestPolicy_only_asks_for_more(t *testing.T) {
	a := Policy{Interval: time.Minute, Action: "pause", RIMs: []string{"web"}}
	b := Policy{Interval: time.Hour, Action: "report", RIMs: []string{"db"}}
	for _, p := range []Policy{a.Stricter(b), b.Stricter(a)} {
		if p.Interval != time.Minute || p.Action != "pause" || strings.Join(p.RIMs, ",") != "db,web" {
			t.Errorf("%+v", p)
		}
	}
	if p := (Policy{}).Stricter(a); p.Interval != time.Minute || !p.Unmet("db") || p.Unmet("db,web") {
		t.Errorf("%+v", p)
	}
}

func TestFormat_escapes_what_a_guest_has_named(t *testing.T) {
	s := Shown{}
	s.State, s.Report = appraise.Untrusted, "aa"
	s.Reasons = []api.HostReason{{Code: appraise.CodeIMAUnlisted, Layer: appraise.LayerVM, Text: "</reason><signature>\x00\x1b[2J'\"&" + strings.Repeat("ü", 190)}}
	text := Format(s)
	if strings.Count(text, "<") != 4 || strings.ContainsAny(text, "\x00\x1b") {
		t.Error(text)
	}
	if d, ok := ReadDisplay(text); !ok || d.Signature != "" || len(d.Reasons) != 1 || !strings.HasPrefix(d.Reasons[0].Text, "</reason><signature>") {
		t.Errorf("%+v", d)
	}
	other := strings.NewReplacer("<attestation ", "<attest:attestation xmlns:attest='"+Namespace+"' ", "</attestation>", "\n</attest:attestation>\n").Replace(text)
	if c := canonical(text); c == "" || c != canonical(other) || c == canonical(strings.Replace(text, "UNTRUSTED", "TRUSTED", 1)) {
		t.Errorf("%q and %q", c, canonical(other))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`<attest:request scheme="sepa"/>`)
	f.Add(`<attestation><policy interval="30s"/></attestation>`)
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(s)
		if err == nil && e.Policy != nil && e.Policy.Interval != 0 && e.Policy.Interval < MinInterval {
			t.Errorf("%+v", e.Policy)
		}
		_ = canonical(s)
	})
}

// libvirt is the metadata of one domain.
type libvirt struct {
	mu           sync.Mutex
	live, config string
	busy         bool // a job holds the domain
	writes       int
	noted        func()
}

var errGone = errors.New("gone")

func (l *libvirt) Read(_ attest.UUID, persistent bool) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if persistent {
		return l.config, nil
	}
	return l.live, nil
}

func (l *libvirt) Write(_ attest.UUID, text string) error {
	l.mu.Lock()
	if l.busy {
		l.mu.Unlock()
		return errors.New("cannot acquire state change lock")
	}
	l.live = strings.ReplaceAll(text, "\n  ", "\n") // in other words
	l.writes++
	l.mu.Unlock()
	l.noted()
	return nil
}

func (l *libvirt) set(text string) {
	l.mu.Lock()
	l.live = text
	l.mu.Unlock()
	l.noted()
}

func (l *libvirt) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live
}

type stand struct {
	*testing.T
	libvirt
	k    *Keeper
	mu   sync.Mutex
	told []lifecycle.Kind
}

func (s *stand) count(k lifecycle.Kind) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.told {
		if t == k {
			n++
		}
	}
	return n
}

func newStand(t *testing.T) *stand {
	s := &stand{T: t}
	set := new(domains.Set)
	set.SetLibvirt([]domains.Domain{{UUID: vm1, Name: "vm1", OptedIn: true}})
	s.k = &Keeper{Notes: &s.libvirt, Gone: errGone, Board: new(verdicts.Board), Domains: set, Log: slog.New(slog.DiscardHandler),
		Tell: func(_ attest.UUID, what lifecycle.Kind, _ attest.Scheme) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.told = append(s.told, what)
		}}
	s.noted = func() { s.k.Noted(vm1) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = s.k.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *stand) judged(report string, state appraise.State, epoch uint64) {
	s.k.Board.Update(&api.Poll{Verdicts: []api.HostVerdict{{Machine: vm1.String(), State: state, Report: report, Epoch: epoch, EAR: "e.a.r", RIM: "web",
		Time: time.Now().UnixMilli(), Expires: time.Now().Add(time.Hour).UnixMilli()}}})
}

func (s *stand) until(what string, f func(Display) bool) {
	s.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		d, ok := ReadDisplay(s.get())
		if ok && f(d) {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("%s: never; it is %s", what, s.get())
		}
	}
}

func TestKeeper_answers_a_request_with_the_verdict_that_comes_of_it(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	s := newStand(t)
	s.judged("one", appraise.Trusted, 1)
	s.until("the first one", func(d Display) bool { return d.Report == "one" && d.Signature == "e.a.r" })
	s.set(`<attest:request scheme="hypa"/>`)
	for end := time.Now().Add(5 * time.Second); s.count(lifecycle.Asked) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if s.count(lifecycle.Asked) != 1 || !strings.Contains(s.get(), "request") {
		t.Fatalf("%v %s", s.told, s.get())
	}
	s.judged("two", appraise.Untrusted, 1)
	var p lifecycle.Plan
	p.Add(time.Now().Add(-time.Hour), vm1, lifecycle.Asked, 0)
	r, _ := p.Next(time.Now())
	s.k.Asked(r, "two", nil)
	s.until("the answer", func(d Display) bool { return d.Report == "two" && d.State == appraise.Untrusted })
	s.set(`<request fresh="no"/>`)
	time.Sleep(50 * time.Millisecond)
	if s.count(lifecycle.Asked) != 2 {
		t.Error("an UNTRUSTED verdict is answer enough")
	}
}

func TestKeeper_overwrites_a_forged_verdict_and_has_the_VM_attested(t *testing.T) {
	s := newStand(t)
	s.judged("one", appraise.Untrusted, 1)
	s.until("the first one", func(d Display) bool { return d.Report == "one" })
	s.set(`<attestation state="TRUSTED" report="forged"/>`)
	s.until("the right one", func(d Display) bool { return d.Report == "one" && d.State == appraise.Untrusted })
	for range 20 {
		s.set(`<attestation state="TRUSTED" report="forged"/>`)
		time.Sleep(5 * time.Millisecond)
	}
	s.until("the right one again", func(d Display) bool { return d.Report == "one" })
	if n := s.count(lifecycle.Forged); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestKeeper_shows_no_verdict_of_another_run(t *testing.T) {
	s := newStand(t)
	s.live = `<attestation state="TRUSTED" report="of the saved state"><policy interval="30s"/></attestation>`
	s.k.Happened(vm1, lifecycle.Restored)
	s.until("nothing of before", func(d Display) bool { return d.State == appraise.Pending && d.Report == "" })
	if p := s.k.Policy(vm1); p.Interval != 30*time.Second {
		t.Errorf("%+v", p)
	}
	s.judged("one", appraise.Trusted, 1)
	s.until("its own", func(d Display) bool { return d.Report == "one" })
	s.k.Happened(vm1, lifecycle.Started)
	s.until("nothing of before", func(d Display) bool { return d.State == appraise.Pending })
	if n := s.count(lifecycle.Forged); n != 0 {
		t.Errorf("taken for forged: %d", n)
	}
}

// libvirt tells of every domain, and most of them may have nothing to do with attestation.
func TestKeeper_writes_nothing_into_a_domain_that_does_not_take_part_and_says_so_where_it_is_asked(t *testing.T) {
	s := newStand(t)
	s.k.Domains.SetLibvirt([]domains.Domain{{UUID: vm1, Name: "vm1"}})
	s.k.Happened(vm1, lifecycle.Started)
	s.judged("one", appraise.Trusted, 1)
	time.Sleep(100 * time.Millisecond)
	if got := s.get(); got != "" {
		t.Errorf("it has %s", got)
	}
	s.set(`<request/>`)
	s.until("an answer", func(d Display) bool { return strings.Contains(d.Error, "virt-attest enable") })
}

func TestKeeper_waits_for_a_domain_that_a_job_holds(t *testing.T) {
	s := newStand(t)
	s.busy = true
	s.judged("one", appraise.Trusted, 1)
	time.Sleep(100 * time.Millisecond)
	s.libvirt.mu.Lock()
	s.busy = false
	s.libvirt.mu.Unlock()
	s.until("later", func(d Display) bool { return d.Report == "one" })
	time.Sleep(1500 * time.Millisecond)
	if s.writes != 1 {
		t.Errorf("%d writes of one verdict", s.writes)
	}
}
