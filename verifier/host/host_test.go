package host_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/verify"
	"virt-attest/internal/channel"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/host"
	"virt-attest/verifier/host/hosttest"
)

// output is a program's output that a test may look at while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func TestMain_says_by_its_exit_code_what_is_wrong(t *testing.T) {
	wrong := filepath.Join(t.TempDir(), "host.toml")
	if err := os.WriteFile(wrong, []byte("[tmp]\nsocket='/x'"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "host.toml")
	if err := os.WriteFile(good, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"-version"}, 0, "virt-attest-hostd"},
		{[]string{"-h"}, 0, "-config"},
		{[]string{"-check", "-config", good}, 0, ""},
		{[]string{"-check", "-config", wrong}, 4, "tmp"},
		{[]string{"-nonsense"}, 2, "nonsense"},
		{[]string{"argument"}, 2, ""},
	} {
		var out output
		if code := host.Main(t.Context(), c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.text) {
			t.Errorf("%v: code %d, %q", c.args, code, out.String())
		}
	}
}

func TestIdentity_is_what_the_Verifier_shows_for_this_TPM(t *testing.T) {
	dir := t.TempDir()
	write := func(socket string) string {
		path := filepath.Join(dir, "host.toml")
		if err := os.WriteFile(path, fmt.Appendf(nil, "name = 'kvm7'\n[tpm]\nsocket = '%s'\n", socket), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	socket := tpmtest.Socket(t, tpmtest.AllBanks())
	dev := ptpm.Socket(socket)
	ek, err := tpmkeys.ReadEK(dev)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	var out output
	code := host.Main(t.Context(), []string{"-identity", "-config", write(socket)}, &out, &out)
	for _, want := range []string{"kvm7\n", api.HostID(ek) + "\n", api.EKSHA256(ek) + "\n"} {
		if code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("code %d, %q in %q", code, want, out.String())
		}
	}
	var none output
	if code := host.Main(t.Context(), []string{"-identity", "-config", write(dir + "/none")}, &none, &none); code != 1 || !strings.Contains(none.String(), "none") {
		t.Errorf("without a TPM: code %d, %q", code, none.String())
	}
}

// verifierd takes any host and keeps what it hears.
type verifierd struct {
	queue  chan attest.Challenge
	hellos chan api.HostHello
	got    chan []byte
}

func (v *verifierd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer any
	switch r.URL.Path {
	case "/api/v1/host/hello":
		b, _ := io.ReadAll(r.Body)
		var h api.HostHello
		_ = channel.Decode(b, &h)
		v.hellos <- h
		answer = api.HostWelcome{ID: api.HostID(h.EK)}
	case "/api/v1/host/challenges":
		list := []attest.Challenge{}
		select {
		case c := <-v.queue:
			list = append(list, c)
		case <-r.Context().Done():
		}
		answer = api.Poll{Challenges: list}
	case "/api/v1/host/evidence":
		b, _ := io.ReadAll(r.Body)
		v.got <- b
		answer = api.EvidenceReply{}
	}
	b, _ := channel.Encode(answer)
	_, _ = w.Write(b)
}

func wait[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("never: ", what)
	}
	return v
}

// hostd as it is started by systemd: with a software TPM and one VM, a Verifier, and no libvirt.
func TestMain_serves_and_takes_new_configurations(t *testing.T) {
	dir, err := os.MkdirTemp("", "va-main-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	v := &verifierd{make(chan attest.Challenge, 1), make(chan api.HostHello, 9), make(chan []byte, 1)}
	l, err := net.Listen("unix", filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: v, ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	states := notifySocket(t, dir)
	for _, d := range []string{"run", "store"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	vm := hosttest.StartVM(t, filepath.Join(dir, "run"), filepath.Join(dir, "store"), attest.UUID{9}, hosttest.NewVTPM(t))
	conf := filepath.Join(dir, "host.toml")
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := fmt.Sprintf("[verifier]\nurl='unix://%[1]s/api.sock'\n[tpm]\nsocket='%[2]s'\n[libvirt]\nuri='none'\n[paths]\nrun='%[1]s/run'\nstore='%[1]s/store'\n",
		dir, tpmtest.Socket(t, tpmtest.AllBanks()))
	configure("name='first'\n" + good)
	ctx, cancel := context.WithCancel(t.Context())
	var out output
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(out.String())
		}
	})
	code := make(chan int, 1)
	go func() { code <- host.Main(ctx, []string{"-v", "-config", conf}, &out, &out) }()
	h := wait(t, "hello", v.hellos)
	for len(h.VMs) == 0 { // the first hello may come before the sidecar was seen
		h = wait(t, "hello with the VM", v.hellos)
	}
	if h.Name != "first" || h.VMs[0].UUID != vm.UUID {
		t.Errorf("%+v", h)
	}
	ch := attest.Challenge{Nonce: hosttest.Nonce(t), Scheme: attest.SchemeSEPA, Host: api.HostID(h.EK), NotAfter: time.Now().Unix() + 20}
	v.queue <- ch
	ev, err := attest.DecodeEvidence(wait(t, "evidence", v.got))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := verify.Evidence(ev, &ch, time.Now()); err != nil || l.Err() != nil || len(l.VMs) != 1 {
		t.Errorf("%v, %+v", err, l)
	}
	for _, step := range []string{"SEPA step 1", "SEPA step 2", "SEPA step 3", "SEPA step 4"} {
		if !strings.Contains(out.String(), step) {
			t.Errorf("-v does not tell %s", step)
		}
	}
	configure("nmae='second'\n" + good)
	time.Sleep(400 * time.Millisecond)
	if !strings.Contains(out.String(), "going on with the old one") {
		t.Error("a wrong configuration was not reported")
	}
	configure("name='third'\n" + good)
	for wait(t, "hello of the new configuration", v.hellos).Name != "third" {
		continue
	}
	cancel()
	if c := wait(t, "end", code); c != 0 {
		t.Errorf("exit code %d\n%s", c, out.String())
	}
	heard := states()
	for _, want := range []string{"READY=1", "STATUS=connected", "STOPPING=1"} {
		if !strings.Contains(heard, want) {
			t.Errorf("systemd was not told %s: %q", want, heard)
		}
	}
}

// notifySocket stands for systemd; the function gives what it was told.
func notifySocket(t *testing.T, dir string) func() string {
	t.Helper()
	path := filepath.Join(dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		var all strings.Builder
		buf := make([]byte, 4096)
		for {
			if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				return err.Error()
			}
			n, err := c.Read(buf)
			if err != nil {
				return all.String()
			}
			fmt.Fprintln(&all, string(buf[:n]))
		}
	}
}
