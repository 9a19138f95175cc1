package guestagent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"go.uber.org/goleak"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("virt-attest/internal/tpmtest.launch.func1"))
}

func newAgent(t *testing.T, tpm transport.TPM) *Agent {
	t.Helper()
	dir := t.TempDir()
	f := Files{IMA: filepath.Join(dir, "ima"), BootLog: filepath.Join(dir, "boot"), BootID: filepath.Join(dir, "id")}
	if err := os.WriteFile(f.BootID, []byte("boot-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := New("test", tpm, f)
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func handle[A any](t *testing.T, a *Agent, op uint8, request any) (answer A, err error) {
	t.Helper()
	payload, err := channel.Encode(request)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Handle(t.Context(), op, payload)
	if err != nil {
		return answer, err
	}
	err = channel.Decode(b, &answer)
	return answer, err
}

func code(err error) channel.Code {
	var r *channel.RemoteError
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

var selection = []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0, 10}}}

// tap sees what crosses the TPM's boundary, and can lose the loaded key as a suspended guest does.
type tap struct {
	transport.TPM
	quotes [][]byte
}

func (p *tap) Send(command []byte) ([]byte, error) {
	rsp, err := p.TPM.Send(command)
	if err == nil && bytes.Equal(command[6:10], []byte{0, 0, 1, 0x58}) && bytes.Equal(rsp[6:10], make([]byte, 4)) {
		p.quotes = append(p.quotes, rsp)
	}
	return rsp, err
}

func TestQuote_ships_the_response_exactly_as_it_crossed(t *testing.T) {
	p := &tap{TPM: tpmtest.New(t)}
	a := newAgent(t, p)
	id, err := handle[agentproto.Identity](t, a, agentproto.OpIdentity, nil)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce)
	got, err := handle[agentproto.Quoted](t, a, agentproto.OpQuote, agentproto.Quote{Nonce: nonce, Selection: selection})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.quotes) != 1 || !bytes.Contains(p.quotes[0], got.Parameters) {
		t.Fatalf("%d quotes crossed, and the shipped one is not among them", len(p.quotes))
	}
	q, err := attest.ParseQuoteParameters(got.Parameters)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := quote.ParseAK(id.AK)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := quote.Verify(q, ak, nonce, got.PCRs); err != nil {
		t.Fatal(err)
	}
}

func TestQuote_comes_again_after_the_TPM_lost_the_key(t *testing.T) {
	tpm := tpmtest.New(t)
	a := newAgent(t, tpm)
	ask := func() error {
		_, err := handle[agentproto.Quoted](t, a, agentproto.OpQuote, agentproto.Quote{Nonce: make([]byte, nonceSize), Selection: selection})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: a.tpm.ak.Handle}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Fatalf("key flushed: %v", err)
	}
	tpm.PowerCycle(t)
	if err := ask(); err != nil {
		t.Fatalf("TPM reset: %v", err)
	}
}

func TestHandle_says_unavailable_for_what_the_VM_does_not_have(t *testing.T) {
	a := newAgent(t, ptpm.Device(filepath.Join(t.TempDir(), "no-tpm")))
	if _, err := handle[agentproto.Identity](t, a, agentproto.OpIdentity, nil); code(err) != channel.CodeUnavailable {
		t.Errorf("no TPM: %v", err)
	}
	for _, op := range []uint8{agentproto.OpIMA, agentproto.OpBootLog} {
		if _, err := handle[agentproto.LogChunk](t, a, op, agentproto.Log{}); code(err) != channel.CodeUnavailable {
			t.Errorf("no log: %v", err)
		}
	}
	if h, err := handle[agentproto.Hello](t, a, agentproto.OpHello, nil); err != nil || h.BootID != "boot-1" || h.Version != "test" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestBootLog_over_the_limit_is_refused_and_not_cut(t *testing.T) {
	a := newAgent(t, nil)
	if err := os.WriteFile(a.files.BootLog, make([]byte, attest.MaxBootLog+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := handle[agentproto.LogChunk](t, a, agentproto.OpBootLog, agentproto.Log{}); err == nil {
		t.Error("accepted")
	}
	if err := os.WriteFile(a.files.BootLog, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := handle[agentproto.LogChunk](t, a, agentproto.OpBootLog, agentproto.Log{From: 1 << 63})
	if err != nil || c.From != 100 || c.Count != 0 || c.More {
		t.Errorf("%+v, %v", c, err)
	}
}

// An agent must be no way to run a program in the VM (CVE-2021-43310), must not unpack what others send
// (CVE-2022-23950 and the advisories beside it), and calls nobody: it listens where it is told to, and nowhere else.
func TestAgent_cannot_run_programs_unpack_archives_or_speak_HTTP(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "virt-attest/cmd/virt-attest-guest").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 50 {
		t.Fatalf("only %d packages", len(deps))
	}
	for _, d := range deps {
		if d == "os/exec" || d == "plugin" || strings.HasPrefix(d, "compress/") || strings.HasPrefix(d, "archive/") || d == "net/http" {
			t.Errorf("the agent reaches %s", d)
		}
	}
}

// World-readable and temporary files of an agent were CVE-2022-23952 and CVE-2022-23949: this one
// makes none but those of released secrets, in memory and for root alone (secrets_test.go).
func TestAgent_writes_no_file_but_released_secrets(t *testing.T) {
	files, err := filepath.Glob("*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, own...) {
		if strings.HasSuffix(f, "_test.go") || f == "secrets.go" {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range []string{"os.Create", "os.WriteFile", "os.MkdirTemp", "os.Symlink", "os.Rename", "O_CREATE", "O_CREAT"} {
			if bytes.Contains(b, []byte(call)) {
				t.Errorf("%s calls %s", f, call)
			}
		}
	}
}

func TestMain_says_what_is_wrong_with_its_arguments(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"-version"}, 0, "virt-attest-guest "},
		{[]string{"-nonsense"}, 2, "-nonsense"},
		{[]string{"start"}, 2, `unexpected argument "start"`},
		{[]string{"-port", "/nonexistent/port"}, 1, "/nonexistent/port"},
	} {
		var out, errs bytes.Buffer
		if got := Main(t.Context(), c.args, &out, &errs); got != c.code || !strings.Contains(out.String()+errs.String(), c.out) {
			t.Errorf("%v: exit status %d, %s%s", c.args, got, out.String(), errs.String())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := Main(ctx, nil, &bytes.Buffer{}, &bytes.Buffer{}); got != 0 {
		t.Errorf("after its end: exit status %d", got)
	}
}

func FuzzHandle(f *testing.F) {
	for _, v := range []any{
		agentproto.Quote{Nonce: make([]byte, nonceSize), Selection: selection}, agentproto.Activate{CredentialBlob: []byte{0, 1, 2}},
		agentproto.Log{BootID: "boot-1", From: 3, Max: 1 << 31}, agentproto.Secret{Name: "disk"}, nil,
	} {
		b, err := channel.Encode(v)
		if err != nil {
			f.Fatal(err)
		}
		for op := range uint8(10) {
			f.Add(op, b)
		}
	}
	f.Fuzz(func(t *testing.T, op uint8, payload []byte) {
		a := newAgent(t, ptpm.Device("/nonexistent/tpm"))
		if err := os.WriteFile(a.files.BootLog, make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := a.Handle(t.Context(), op, payload)
		if err == nil && len(b) > agentproto.MaxPayload {
			t.Fatalf("an answer of %d bytes", len(b))
		}
	})
}
