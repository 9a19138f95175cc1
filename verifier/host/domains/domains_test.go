package domains_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/host/domains"
)

var (
	a = attest.UUID{1}
	b = attest.UUID{2}
	c = attest.UUID{3}
)

func TestSet_never_loses_a_VM_that_either_source_knows(t *testing.T) {
	var s domains.Set
	s.SetLibvirt([]domains.Domain{{UUID: c, Name: "other"}, {UUID: a, Name: "one", OptedIn: true}})
	s.SetSidecars([]attest.UUID{b})
	want := []domains.Domain{{UUID: a, Name: "one", OptedIn: true}, {UUID: b, Sidecar: true}, {UUID: c, Name: "other"}}
	if got := s.List(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if got := s.Attested(); !slices.Equal(got, want[:2]) {
		t.Errorf("attested: %+v", got)
	}
	s.SetSidecars([]attest.UUID{a, b})
	if d, ok := s.Find(a); !ok || !d.Sidecar || !d.OptedIn || d.Name != "one" {
		t.Errorf("%+v", d)
	}
	s.SetLibvirt(nil) // libvirtd is gone
	if got := s.Attested(); len(got) != 2 || !got[0].Sidecar {
		t.Errorf("by sidecars alone: %+v", got)
	}
	if _, ok := s.Find(c); ok {
		t.Error("found a domain that is not there")
	}
}

func TestSet_tells_changes_and_only_changes(t *testing.T) {
	var s domains.Set
	s.SetSidecars([]attest.UUID{a})
	changed := s.Changed()
	s.SetSidecars([]attest.UUID{a})
	select {
	case <-changed:
		t.Error("nothing has changed")
	default:
	}
	s.SetLibvirt([]domains.Domain{{UUID: a, Name: "renamed"}})
	select {
	case <-changed:
	default:
		t.Error("not told")
	}
}

// A hostd that is restarted would tell the Verifier otherwise that all its VMs have gone, and their verdicts would end.
func TestSettle_waits_for_libvirt_and_sidecars_and_not_for_ever(t *testing.T) {
	var s domains.Set
	done := make(chan struct{})
	go func() { s.Settle(t.Context(), time.Minute); close(done) }()
	s.SetSidecars(nil)
	select {
	case <-done:
		t.Fatal("libvirt has not been heard")
	case <-time.After(20 * time.Millisecond):
	}
	s.SetLibvirt(nil) // it is not there
	<-done
	s.Settle(t.Context(), time.Minute)
	new(domains.Set).Settle(t.Context(), time.Millisecond)
}

const xmlTPM = `<domain type='kvm' id='3'><name>vm</name><devices>%s</devices></domain>`

func TestOptedIn_takes_only_an_external_TPM_at_the_VMs_own_place(t *testing.T) {
	path := "/run/virt-attest/" + a.String() + "/tpm.sock"
	tpm := func(kind, path string) string {
		return fmt.Sprintf(xmlTPM, fmt.Sprintf("<tpm model='tpm-crb'><backend type='%s'><source type='unix' mode='connect' path='%s'/></backend></tpm>", kind, path))
	}
	for name, c := range map[string]struct {
		xml  string
		want bool
	}{
		"ours":           {tpm("external", path), true},
		"another VM's":   {tpm("external", "/run/virt-attest/"+b.String()+"/tpm.sock"), false},
		"somewhere else": {tpm("external", "/run/other.sock"), false},
		"emulator":       {tpm("emulator", path), false},
		"none":           {fmt.Sprintf(xmlTPM, ""), false},
		"not XML":        {"<domain", false},
		"entity bomb":    {`<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><domain>&b;</domain>`, false},
		"deep":           {strings.Repeat("<a>", 1_000_000), false},
		"huge":           {strings.Repeat(" ", 5<<20) + tpm("external", path), false},
	} {
		if got := domains.OptedIn(c.xml, a, "/run/virt-attest"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzOptedIn(f *testing.F) {
	f.Add(fmt.Sprintf(xmlTPM, "<tpm/>"))
	f.Fuzz(func(t *testing.T, s string) {
		if domains.OptedIn(s, a, "/run/virt-attest") && !strings.Contains(s, "tpm") {
			t.Error("opted in without a TPM")
		}
	})
}

func TestWatchSidecars_sees_them_come_and_go(t *testing.T) {
	base, err := os.MkdirTemp("", "va-dom-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	dir := filepath.Join(base, "later")
	var s domains.Set
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.WatchSidecars(ctx, dir, slog.New(slog.DiscardHandler)) }()
	expect := func(what string, ids ...attest.UUID) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
			changed := s.List()
			if slices.EqualFunc(changed, ids, func(d domains.Domain, id attest.UUID) bool { return d.UUID == id }) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, changed)
			}
		}
	}
	listen := func(id string) net.Listener {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, id), 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond) // the directory is there before the socket
		l, err := net.Listen("unix", filepath.Join(dir, id, "sidecar.sock"))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	expect("none yet")
	one := listen(a.String())
	expect("the first one", a)
	two := listen(b.String())
	defer func() { _ = two.Close() }()
	defer func() { _ = listen("not-a-uuid").Close() }()
	if err := os.WriteFile(filepath.Join(dir, c.String()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("the second one", a, b)
	if err := one.Close(); err != nil { // removes the socket
		t.Fatal(err)
	}
	expect("one gone", b)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, a.String(), "sidecar.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	expect("one is back", a, b)
	dead.SetUnlinkOnClose(false)
	if err := errors.Join(dead.Close(), os.WriteFile(filepath.Join(dir, a.String(), "event"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	expect("one whose socket nobody serves any more", b)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	expect("all gone")
	two = listen(b.String())
	expect("one is back", b)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
