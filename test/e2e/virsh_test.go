package e2e

import (
	"context"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
	"time"

	"virt-attest/test/guest"
	"virt-attest/test/scenario"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/host/metadata"
)

// shown is what virsh metadata prints of a domain.
type shown struct {
	State     appraise.State `xml:"state,attr"`
	Scheme    string         `xml:"scheme,attr"`
	Time      string         `xml:"time,attr"`
	Expires   string         `xml:"expires,attr"`
	Report    string         `xml:"report,attr"`
	Epoch     uint64         `xml:"epoch,attr"`
	Signature string         `xml:"signature"`
	Error     string         `xml:"error"`
	Reasons   []struct {
		Code appraise.Code `xml:"code,attr"`
		Text string        `xml:",chardata"`
	} `xml:"reason"`
	Policy *struct {
		Interval string `xml:"interval,attr"`
	} `xml:"policy"`
}

func (b *bench) metadata(v scenario.VM) (s shown, err error) {
	out, errs, code := b.Good.Run(b.within(time.Minute), "virsh", "--quiet", "metadata", v.Name, metadata.Namespace)
	if code != 0 {
		return s, fmt.Errorf("virsh metadata: %s", errs)
	}
	if !strings.Contains(out, "<attestation") {
		return s, fmt.Errorf("no attestation: %s", out)
	}
	return s, xml.Unmarshal([]byte(out), &s)
}

// shows waits for what the domain's metadata shows.
func (b *bench) shows(d time.Duration, v scenario.VM, what string, is func(shown) bool) shown {
	b.Helper()
	began := time.Now()
	var s shown
	b.soon(d, func() (err error) {
		if s, err = b.metadata(v); err == nil && !is(s) {
			err = fmt.Errorf("%s: it shows %+v", what, s)
		}
		return err
	})
	b.Logf("%s: shown after %v: %s %s, report %s", what, time.Since(began).Round(10*time.Millisecond), s.State, s.Scheme, s.Report)
	return s
}

func is(state appraise.State) func(shown) bool {
	return func(s shown) bool { return s.State == state }
}

func (b *bench) set(v scenario.VM, element string, flags ...string) {
	b.Helper()
	b.virsh(append([]string{"metadata", v.Name, "--uri", metadata.Namespace, "--key", metadata.Key, "--set", element}, flags...)...)
}

// An operator who has only virsh starts VMs and sees verdicts on them, without asking for any.
func TestVirsh(t *testing.T) {
	if testing.Short() {
		t.Log("nothing is tested with -short: hosts and VMs have to boot")
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	w := world(ctx, t, "e2evirsh")
	b := &bench{T: t, World: w, ctx: ctx}
	b.check(w.Launch(ctx, w.Good, one, nil))
	b.judged(one)
	b.check(w.Configure(ctx))
	for _, s := range []struct {
		name string
		test func(*bench)
	}{
		{"virsh start leads to a verdict without any command", startShows},
		{"a request by virsh metadata is answered, and virsh event wakes", requestAnswered},
		{"a forged verdict is overwritten and told of", forgedOverwritten},
		{"what was missed while hostd or libvirtd was away is made up for", reconciled},
		{"an unlisted program turns the VM UNTRUSTED without any command", unlistedShows},
	} {
		if !b.part(s.name, s.test) {
			return
		}
	}
}

func startShows(b *bench) {
	before := b.shows(30*time.Second, one, "the verdict of before", is(appraise.Trusted))
	b.virsh("destroy", one.Name)
	b.virsh("start", one.Name)
	if s, err := b.metadata(one); err == nil && s.State == appraise.Trusted {
		b.Errorf("a verdict on another run is shown: %+v", s)
	}
	b.booted(one)
	now := b.shows(15*time.Second, one, "the prompt was there", is(appraise.Trusted))
	if now.Epoch <= before.Epoch || now.Report == before.Report || now.Signature == "" {
		b.Errorf("before %+v, after %+v", before, now)
	}
}

func requestAnswered(b *bench) {
	before := b.shows(time.Second, one, "before", is(appraise.Trusted))
	woken := make(chan string, 1)
	go func() {
		out, _, _ := b.Good.Run(b.ctx, "virsh", "event", one.Name, "--event", "metadata-change", "--loop", "--timeout", "15")
		woken <- out
	}()
	time.Sleep(time.Second)
	b.set(one, `<attest:request scheme="hypa"/>`)
	s := b.shows(15*time.Second, one, "the answer", func(s shown) bool { return s.Report != before.Report })
	if s.Scheme != "hypa" || s.State != appraise.Trusted || s.Time == "" || s.Expires == "" || strings.Count(s.Signature, ".") != 2 {
		b.Errorf("%+v", s)
	}
	if out := <-woken; strings.Count(out, metadata.Namespace) < 2 {
		b.Errorf("virsh event says: %s", out)
	}
	b.set(one, `<attest:request scheme="magic"/>`)
	b.shows(10*time.Second, one, "a request that nobody can read", func(s shown) bool { return strings.Contains(s.Error, "scheme is sepa or hypa") })
}

func forgedOverwritten(b *bench) {
	before := b.shows(5*time.Second, one, "before", is(appraise.Trusted))
	b.set(one, `<attestation state="TRUSTED" report="forged" expires="2999-01-01T00:00:00Z"/>`)
	s := b.shows(15*time.Second, one, "after a forgery", func(s shown) bool { return s.Report != "forged" && s.Report != before.Report })
	if s.State != appraise.Trusted || s.Signature == "" {
		b.Errorf("%+v", s)
	}
	if out := b.on(b.Good, "journalctl", "--no-pager", "--output=cat", "--unit="+hostd); !strings.Contains(out, "somebody wrote a verdict") {
		b.Error("hostd's journal does not tell of the forgery")
	}
	b.set(one, `<attest:policy interval="30s"/>`)
	b.set(one, `<attest:policy interval="20s"/>`, "--config")
	b.shows(10*time.Second, one, "the policy", func(s shown) bool { return s.Policy != nil && s.Policy.Interval == "30s" })
}

func reconciled(b *bench) {
	b.on(b.Good, "systemctl", "stop", hostd)
	b.virsh("destroy", one.Name)
	b.virsh("start", one.Name)
	b.booted(one)
	b.on(b.Good, "systemctl", "start", hostd)
	s := b.shows(20*time.Second, one, "hostd is back", is(appraise.Trusted))
	b.on(b.Good, "systemctl", "restart", "libvirtd.service")
	b.set(one, `<attest:request/>`)
	b.shows(60*time.Second, one, "libvirtd is back", func(n shown) bool { return n.State == appraise.Trusted && n.Report != s.Report })
}

func unlistedShows(b *bench) {
	b.in(one, guest.Unlisted)
	s := b.shows(15*time.Second, one, "an unlisted program ran", is(appraise.Untrusted))
	if len(s.Reasons) == 0 || s.Reasons[0].Code != appraise.CodeIMAUnlisted || !strings.Contains(s.Reasons[0].Text, guest.Unlisted) {
		b.Errorf("%+v", s.Reasons)
	}
}
