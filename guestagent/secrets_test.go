package guestagent

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/sealed"
	"virt-attest/internal/tpmtest"
)

// memory is a directory in memory.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "va-secrets-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "secrets")
}

// vm is an agent with its vTPM, and what the Verifier knows of it.
type vm struct {
	*Agent
	dir string
	id  agentproto.Identity
}

func newVM(t *testing.T, identity int) *vm {
	t.Helper()
	v := &vm{Agent: newAgent(t, tpmtest.New(t, tpmtest.Identity(identity))), dir: memory(t)}
	v.secrets.dir = v.dir
	var err error
	if v.id, err = handle[agentproto.Identity](t, v.Agent, agentproto.OpIdentity, nil); err != nil {
		t.Fatal(err)
	}
	return v
}

// asks gives what the Verifier seals for after a new request.
func (v *vm) asks(t *testing.T, name string) sealed.For {
	t.Helper()
	r, err := handle[agentproto.Request](t, v.Agent, agentproto.OpRequest, nil)
	if err != nil {
		t.Fatal(err)
	}
	ek, err1 := quote.NameOf(v.id.EK)
	ak, err2 := quote.NameOf(v.id.AK)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return sealed.For{VM: attest.UUID{9}, Epoch: 4, EKName: ek, AKName: ak, Nonce: r.Nonce, Name: name}
}

func (v *vm) seal(t *testing.T, f sealed.For, value string) agentproto.Secret {
	t.Helper()
	b, err := sealed.Seal(rand.Reader, v.id.EK, f, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return agentproto.Secret{VM: f.VM, Epoch: f.Epoch, Name: f.Name, Box: *b}
}

func (v *vm) take(t *testing.T, q agentproto.Secret) error {
	t.Helper()
	_, err := handle[struct{}](t, v.Agent, agentproto.OpSecret, q)
	return err
}

func TestSecret_becomes_a_file_in_memory_that_only_root_reads(t *testing.T) {
	v := newVM(t, 0)
	if err := v.take(t, v.seal(t, v.asks(t, "disk"), "the key\n")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(v.dir, "disk")
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o400 {
		t.Fatal(st, err)
	}
	if d, err := os.Stat(v.dir); err != nil || d.Mode().Perm() != 0o700 {
		t.Error(d, err)
	}
	var out, errs bytes.Buffer
	if code := Main(t.Context(), []string{"secret", "-secrets", v.dir, "disk"}, &out, &errs); code != 0 || out.String() != "the key\n" {
		t.Errorf("%d %q %q", code, out.String(), errs.String())
	}
	if err := v.take(t, v.seal(t, v.asks(t, "disk"), "another")); err != nil { // a new value takes the old one's place
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "another" {
		t.Errorf("%q %v", b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(v.dir, ".new*")); len(left) != 0 {
		t.Error(left)
	}
}

// What a hostile host, or a guest that got hold of what was meant for another, can send.
func TestSecret_that_is_replayed_crossed_or_changed_is_refused(t *testing.T) {
	v, other := newVM(t, 0), newVM(t, 1)
	f := v.asks(t, "disk")
	good := v.seal(t, f, "the key")
	for what, bad := range map[string]agentproto.Secret{
		"another run":  func() agentproto.Secret { q := good; q.Epoch++; return q }(),
		"another VM":   func() agentproto.Secret { q := good; q.VM[0]++; return q }(),
		"another name": func() agentproto.Secret { q := good; q.Name = "other"; return q }(),
		"a path":       func() agentproto.Secret { q := good; q.Name = "../disk"; return q }(),
		"another vTPM": other.seal(t, sealed.For{VM: f.VM, Epoch: f.Epoch, EKName: f.EKName, AKName: f.AKName, Nonce: f.Nonce, Name: "b"}, "x"),
		"another key":  v.seal(t, sealed.For{VM: f.VM, Epoch: f.Epoch, EKName: f.EKName, AKName: other.asks(t, "c").AKName, Nonce: f.Nonce, Name: "c"}, "x"),
	} {
		if err := v.take(t, bad); code(err) != channel.CodeBadRequest {
			t.Errorf("%s: %v", what, err)
		}
	}
	if entries, _ := os.ReadDir(v.dir); len(entries) != 0 {
		t.Fatalf("files: %v", entries)
	}
	f = v.asks(t, "disk") // the first one has been tried
	if err := v.take(t, good); code(err) != channel.CodeBadRequest {
		t.Errorf("of an earlier request: %v", err)
	}
	f = v.asks(t, "disk")
	good = v.seal(t, f, "the key")
	if err := v.take(t, good); err != nil {
		t.Fatal(err)
	}
	if err := v.take(t, good); code(err) != channel.CodeBadRequest {
		t.Errorf("a second time: %v", err)
	}
	f = v.asks(t, "late")
	v.secrets.asked = time.Now().Add(-requestTime - time.Second)
	if err := v.take(t, v.seal(t, f, "x")); code(err) != channel.CodeBadRequest {
		t.Errorf("late: %v", err)
	}
}

// The host may ask for the content of credentials. That of a secret's it must not get.
func TestActivate_does_not_open_a_secret_for_the_host(t *testing.T) {
	v := newVM(t, 0)
	q := v.seal(t, v.asks(t, "disk"), "the key")
	got, err := handle[agentproto.Activated](t, v.Agent, agentproto.OpActivate, agentproto.Activate{CredentialBlob: q.Box.CredentialBlob, Secret: q.Box.Secret})
	if code(err) != channel.CodeBadRequest || got.Secret != nil {
		t.Errorf("%x, %v", got.Secret, err)
	}
}

func TestSecret_never_goes_to_a_disk(t *testing.T) {
	v := newVM(t, 0)
	dir, err := os.MkdirTemp(".", "disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	v.secrets.dir = dir
	if err := v.take(t, v.seal(t, v.asks(t, "disk"), "the key")); code(err) != channel.CodeUnavailable {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Error(entries)
	}
	v.secrets.dir = ""
	if _, err := handle[agentproto.Request](t, v.Agent, agentproto.OpRequest, nil); code(err) != channel.CodeUnavailable {
		t.Errorf("an agent that takes none: %v", err)
	}
}

func TestSecret_command_waits_for_what_is_released_later(t *testing.T) {
	dir := memory(t)
	go func() {
		time.Sleep(50 * time.Millisecond)
		_ = os.MkdirAll(dir, 0o700)
		_ = os.WriteFile(filepath.Join(dir, "disk"), []byte("late"), 0o400)
	}()
	var out, errs bytes.Buffer
	if code := Main(t.Context(), []string{"secret", "-secrets", dir, "-wait", "20s", "disk"}, &out, &errs); code != 0 || out.String() != "late" {
		t.Errorf("%d %q %q", code, out.String(), errs.String())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		args []string
		code int
		text string
	}{
		{t.Context(), []string{"other"}, 1, "not released"},
		{ended, []string{"-wait", "20s", "other"}, 1, "canceled"},
		{t.Context(), []string{"../disk"}, 2, "usage"},
		{t.Context(), []string{}, 2, "usage"},
		{t.Context(), []string{"-wait", "-1s", "x"}, 2, "usage"},
		{t.Context(), []string{"-what"}, 2, "what"},
	} {
		errs.Reset()
		args := append([]string{"secret", "-secrets", dir}, c.args...)
		if code := Main(c.ctx, args, &out, &errs); code != c.code || !strings.Contains(errs.String(), c.text) {
			t.Errorf("%v: %d %q", args, code, errs.String())
		}
	}
}
