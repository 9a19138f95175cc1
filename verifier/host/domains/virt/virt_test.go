package virt_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"virt-attest/attest"
	"virt-attest/verifier/host/domains"
	"virt-attest/verifier/host/domains/virt"
	"virt-attest/verifier/host/lifecycle"
)

// follow runs a source on libvirt's own test driver, which needs no libvirtd.
func follow(t *testing.T, uri string) *domains.Set {
	t.Helper()
	set := new(domains.Set)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	s := &virt.Source{URI: uri, Run: "/run/virt-attest", Set: set, Log: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Follow(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("does not end")
		}
	})
	return set
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestFollow_lists_running_domains_and_versions(t *testing.T) {
	set := follow(t, "test:///default")
	eventually(t, "the domain of libvirt's test driver", func() bool {
		list := set.List()
		return len(list) == 1 && list[0].Name == "test" && !list[0].OptedIn
	})
	eventually(t, "versions", func() bool { return len(set.Software()) == 2 })
	if len(set.Attested()) != 0 {
		t.Error("a domain that has not opted in is taken for one that has")
	}
}

func TestFollow_goes_on_without_libvirt(t *testing.T) {
	set := follow(t, "qemu+unix:///system?socket=/nonexistent/socket")
	time.Sleep(100 * time.Millisecond)
	if len(set.List()) != 0 {
		t.Error("domains out of nowhere")
	}
}

const optedIn = `<domain type='test'><name>attested</name><uuid>0b3ea7ce-0000-4000-8000-00000000abcd</uuid><memory>1024</memory>
<os><type>hvm</type></os><devices><tpm model='tpm-crb'><backend type='external'>
<source type='unix' mode='connect' path='/run/virt-attest/0b3ea7ce-0000-4000-8000-00000000abcd/tpm.sock'/></backend></tpm></devices></domain>`

// The test driver's domains belong to the process: a second connection changes what the first one sees.
func TestFollow_sees_domains_come_and_go(t *testing.T) {
	set := follow(t, "test:///default")
	eventually(t, "connected", func() bool { return len(set.List()) == 1 })
	conn, err := libvirt.NewConnect("test:///default")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = conn.Close() }()
	dom, err := conn.DomainCreateXML(optedIn, 0)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the opted-in domain, whose sidecar is missing", func() bool {
		list := set.Attested()
		return len(list) == 1 && list[0].Name == "attested" && list[0].OptedIn && !list[0].Sidecar
	})
	if err := dom.Destroy(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end", func() bool { return len(set.Attested()) == 0 })
}

func TestNotes_are_of_the_running_domain_and_tell_of_changes(t *testing.T) {
	const uri, space = "test:///default", "https://virt-attest.org/xmlns/attest/1"
	noted, happened := make(chan attest.UUID, 8), make(chan lifecycle.Kind, 8)
	set := new(domains.Set)
	s := &virt.Source{URI: uri, Run: "/run/virt-attest", Set: set, Log: slog.New(slog.DiscardHandler), Notes: space,
		Noted: func(id attest.UUID) { noted <- id }, Happened: func(_ attest.UUID, k lifecycle.Kind) { happened <- k }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Follow(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "connected", func() bool { return len(set.List()) == 1 })
	vm := set.List()[0].UUID
	n := &virt.Notes{URI: uri, Namespace: space, Key: "attest"}
	defer n.Close()
	if text, err := n.Read(vm, false); err != nil || text != "" {
		t.Errorf("%q, %v", text, err)
	}
	const element = "<attestation state=\"PENDING\">\n  <reason code=\"a\">&lt;b&gt;</reason>\n</attestation>"
	if err := n.Write(vm, element); err != nil {
		t.Fatal(err)
	}
	if text, err := n.Read(vm, false); err != nil || !strings.Contains(text, "attestation state=\"PENDING\"") || !strings.Contains(text, "&lt;b&gt;") {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := n.Read(vm, true); err != nil || text != "" {
		t.Errorf("it is in the definition: %q, %v", text, err)
	}
	select {
	case id := <-noted:
		if id != vm {
			t.Error(id)
		}
	case <-time.After(5 * time.Second):
		t.Error("not told of")
	}
	conn, err := libvirt.NewConnect(uri)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = conn.Close() }()
	dom, err := conn.DomainCreateXML(optedIn, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dom.Destroy() }()
	select {
	case k := <-happened:
		if k != lifecycle.Started {
			t.Error(k)
		}
	case <-time.After(5 * time.Second):
		t.Error("a start is not told of")
	}
	if err := n.Write(attest.UUID{9}, element); !errors.Is(err, virt.ErrNoDomain) {
		t.Errorf("a domain that there is not: %v", err)
	}
}
