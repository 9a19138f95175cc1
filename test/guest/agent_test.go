package guest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/attest/measurement/eventlog"
	"virt-attest/attest/quote"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/credential"
	"virt-attest/sidecar/agentport"
	"virt-attest/test/guest"
)

// needsVM ends a test early under -short: these boot virtual machines.
func needsVM(t *testing.T) bool {
	t.Helper()
	if testing.Short() {
		t.Log("nothing is tested with -short: a VM has to boot")
		return false
	}
	return true
}

func image(t *testing.T) guest.Image {
	t.Helper()
	agent, err := guest.Compile(t.Context(), t.TempDir(), "virt-attest/cmd/virt-attest-guest")
	if err != nil {
		t.Fatal(err)
	}
	img, err := guest.Build(t.Context(), guest.DefaultCache(), guest.Binaries{Agent: agent})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// vm is a running guest with the host's end of its agent channel.
type vm struct {
	*testing.T
	machine *guest.Machine
	console *guest.Console
	sock    string
	port    *agentport.Port
	slowed  *atomic.Int32 // warnings of the port
	stop    func()        // takes the port away, as a sidecar's death does
}

func boot(t *testing.T, o guest.Options) *vm {
	t.Helper()
	img := image(t)
	dir, err := os.MkdirTemp("", "va-vm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	v := &vm{T: t, slowed: new(atomic.Int32), sock: filepath.Join(dir, "agent")}
	v.serve()
	t.Cleanup(func() { v.stop() })
	start := time.Now()
	if v.machine, err = img.Boot(t.Context(), dir, v.sock, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.machine.Close)
	v.console = v.machine.Console
	v.connected(time.Minute)
	t.Logf("agent ready %v after the VM's start", time.Since(start).Round(10*time.Millisecond))
	if err := v.console.WaitReady(v.within(time.Minute)); err != nil {
		t.Fatalf("%v\n%s", err, v.console.Transcript())
	}
	return v
}

// counter counts warnings.
type counter struct {
	slog.Handler
	n *atomic.Int32
}

func (c counter) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (c counter) Handle(context.Context, slog.Record) error { c.n.Add(1); return nil }

// serve listens in the sidecar's place.
func (v *vm) serve() {
	v.Helper()
	_ = os.Remove(v.sock)
	ln, err := net.Listen("unix", v.sock)
	if err != nil {
		v.Fatal(err)
	}
	v.port = agentport.New(slog.New(counter{slog.DiscardHandler, v.slowed}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := v.port.Serve(ctx, ln); err != nil {
			v.Error(err)
		}
	}()
	v.stop = func() { cancel(); <-done }
}

func (v *vm) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	v.Cleanup(cancel)
	return ctx
}

func (v *vm) connected(d time.Duration) {
	v.Helper()
	for end := time.Now().Add(d); !v.port.Connected(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			text := ""
			if v.console != nil {
				text = v.console.Transcript()
			}
			v.Fatalf("no agent within %v\n%s", d, text)
		}
	}
}

// ask makes a request and decodes its answer.
func ask[A any](v *vm, op uint8, request any) (A, error) {
	var a A
	var payload []byte
	if request != nil {
		var err error
		if payload, err = channel.Encode(request); err != nil {
			return a, err
		}
	}
	b, err := v.port.Request(v.within(20*time.Second), op, payload)
	if err != nil {
		return a, err
	}
	err = channel.Decode(b, &a)
	return a, err
}

func must[A any](v *vm, op uint8, request any) A {
	v.Helper()
	a, err := ask[A](v, op, request)
	if err != nil {
		v.Fatal(err)
	}
	return a
}

func (v *vm) run(command string) string {
	v.Helper()
	out, err := v.console.Run(v.within(2*time.Minute), command)
	if err != nil {
		v.Fatal(err)
	}
	return out
}

func code(err error) channel.Code {
	var r *channel.RemoteError
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

var allPCRs = func() (s attest.PCRSelection) {
	s.Alg = attest.SHA256
	for i := range uint8(attest.PCRCount) {
		s.PCRs = append(s.PCRs, i)
	}
	return s
}()

// quoted asks for a quote over a fresh nonce and gives the values that it proves.
func (v *vm) quoted(ak *quote.AK) *quote.Verified {
	v.Helper()
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		v.Fatal(err)
	}
	q := must[agentproto.Quoted](v, agentproto.OpQuote, agentproto.Quote{Nonce: nonce, Selection: []attest.PCRSelection{allPCRs}})
	parsed, err := attest.ParseQuoteParameters(q.Parameters)
	if err != nil {
		v.Fatal(err)
	}
	proven, err := quote.Verify(parsed, ak, nonce, q.PCRs)
	if err != nil {
		v.Fatal(err)
	}
	return proven
}

func (v *vm) ak() *quote.AK {
	v.Helper()
	ak, err := quote.ParseAK(must[agentproto.Identity](v, agentproto.OpIdentity, nil).AK)
	if err != nil {
		v.Fatal(err)
	}
	return ak
}

// log fetches the list from an entry on, chunk by chunk.
func (v *vm) log(bootID string, from uint64, size uint32) (seg attest.LogSegment, chunks int) {
	v.Helper()
	for {
		c := must[agentproto.LogChunk](v, agentproto.OpIMA, agentproto.Log{BootID: bootID, From: from, Max: size})
		if chunks == 0 {
			seg = attest.LogSegment{BootID: c.BootID, TemplateHash: c.TemplateHash, From: c.From}
			bootID = c.BootID
		}
		if len(c.Data) > agentproto.MaxChunk || c.From != seg.From+seg.Count {
			v.Fatalf("a chunk of %d bytes from entry %d, after entry %d", len(c.Data), c.From, seg.From+seg.Count)
		}
		chunks++
		seg.Count += c.Count
		seg.Data = append(seg.Data, c.Data...)
		from = seg.From + seg.Count
		if !c.More {
			return seg, chunks
		}
	}
}

func TestAgent_in_a_real_guest(t *testing.T) {
	if !needsVM(t) {
		return
	}
	v := boot(t, guest.Options{})
	for _, s := range []struct {
		name string
		test func(*vm)
	}{
		{"hello says which kernel and boot this is", testHello},
		{"the attestation key is enrolled by activation, and by nothing else", testEnrolment},
		{"quote and IMA list prove each other", testQuoteAndList},
		{"the boot log explains the boot PCRs", testBootLog},
		{"an increment holds what is new and nothing else", testIncrement},
		{"malformed requests are refused and the next one is served", testMalformed},
		{"a long list comes in bounded chunks and costs what is new", testLongList},
		{"quotes hold while PCR 10 moves", testMovingPCR},
		{"the host's end may come and go in mid-frame", testReconnect},
		{"a flood by the host loses no request after it", testHostFlood},
		{"a flood by the guest ends with the flood", testGuestFlood},
		{"a stuck agent costs its own request and no more", testStuckAgent},
		{"an agent that was killed is back when it is started again", testAgentKilled},
	} {
		if !t.Run(s.name, func(t *testing.T) {
			inner := *v
			inner.T = t
			s.test(&inner)
			v.port, v.stop = inner.port, inner.stop
		}) {
			t.Logf("console:\n%s", v.console.Transcript())
			t.Log(v.console.Run(v.within(5*time.Second), "cat /run/agent.log"))
			break
		}
	}
}

func testHello(v *vm) {
	h := must[agentproto.Hello](v, agentproto.OpHello, nil)
	if want := strings.TrimSpace(v.run("uname -r")); h.Kernel != want {
		v.Errorf("kernel %q, want %q", h.Kernel, want)
	}
	if want := strings.TrimSpace(v.run("cat /proc/sys/kernel/random/boot_id")); h.BootID != want {
		v.Errorf("boot id %q, want %q", h.BootID, want)
	}
	if h.Version == "" {
		v.Error("no version")
	}
}

func testEnrolment(v *vm) {
	id := must[agentproto.Identity](v, agentproto.OpIdentity, nil)
	name, err := quote.NameOf(id.AK)
	if err != nil {
		v.Fatal(err)
	}
	secret := []byte("0123456789abcdef0123456789abcdef")
	blob, seed, err := credential.Make(rand.Reader, id.EK, name, secret)
	if err != nil {
		v.Fatal(err)
	}
	got := must[agentproto.Activated](v, agentproto.OpActivate, agentproto.Activate{CredentialBlob: blob, Secret: seed})
	if !bytes.Equal(got.Secret, secret) {
		v.Errorf("got %x", got.Secret)
	}
	other := bytes.Clone(name)
	other[10] ^= 1
	if blob, seed, err = credential.Make(rand.Reader, id.EK, other, secret); err != nil {
		v.Fatal(err)
	}
	if _, err := ask[agentproto.Activated](v, agentproto.OpActivate, agentproto.Activate{CredentialBlob: blob, Secret: seed}); code(err) != channel.CodeBadRequest {
		v.Errorf("a credential for another key: %v", err)
	} else if bytes.Contains([]byte(err.Error()), secret) { // CVE-2023-38201
		v.Error("the error holds the secret")
	}
	v.quoted(v.ak())
}

func testQuoteAndList(v *vm) {
	proven := v.quoted(v.ak())
	seg, _ := v.log("", 0, 0)
	proof, err := measurement.Replay(seg, measurement.State{}, proven.Banks, measurement.Options{CheckDigests: true})
	if err != nil {
		v.Fatal(err)
	}
	paths := map[string]bool{}
	for e := range proof.Entries() {
		paths[e.PathText()] = true
	}
	for _, want := range []string{"boot_aggregate", "/sbin/init", "/bin/busybox", guest.AgentPath} {
		if !paths[want] {
			v.Errorf("%s is not in the list: %v", want, paths)
		}
	}
	if paths[guest.Unlisted] {
		v.Error("the unlisted program ran by itself")
	}
}

func testBootLog(v *vm) {
	proven := v.quoted(v.ak())
	var data []byte
	for {
		c := must[agentproto.LogChunk](v, agentproto.OpBootLog, agentproto.Log{From: uint64(len(data)), Max: 300})
		if c.From != uint64(len(data)) || c.Count != uint64(len(c.Data)) || len(c.Data) > 300 {
			v.Fatalf("chunk of %d bytes at %d, wanted %d", len(c.Data), c.From, len(data))
		}
		data = append(data, c.Data...)
		if !c.More {
			break
		}
	}
	log, err := eventlog.Parse(data)
	if err != nil {
		v.Fatal(err)
	}
	for _, m := range log.Replay(proven.Banks) {
		v.Errorf("PCR %d of %v is not explained", m.PCR, m.Alg)
	}
}

func testIncrement(v *vm) {
	id := must[agentproto.Hello](v, agentproto.OpHello, nil).BootID
	ak := v.ak()
	before, _ := v.log(id, 0, 0)
	first, err := measurement.Replay(before, measurement.State{}, v.quoted(ak).Banks, measurement.Options{})
	if err != nil {
		v.Fatal(err)
	}
	if out := v.run(guest.Unlisted); strings.TrimSpace(out) != guest.UnlistedSays {
		v.Errorf("the unlisted program says %q", out)
	}
	proven := v.quoted(ak)
	more, _ := v.log(id, first.State.Count, 0)
	if more.From != first.State.Count || more.Count != 1 {
		v.Fatalf("%d entries from %d, want 1 from %d", more.Count, more.From, first.State.Count)
	}
	proof, err := measurement.Replay(more, first.State, proven.Banks, measurement.Options{})
	if err != nil {
		v.Fatal(err)
	}
	for e := range proof.Entries() {
		if e.PathText() != guest.Unlisted {
			v.Errorf("new entry %s", e.PathText())
		}
	}
	if again, _ := v.log("another boot", more.From+more.Count, 0); again.From != 0 || again.Count != more.From+more.Count {
		v.Errorf("for another boot's place: %d entries from %d", again.Count, again.From)
	}
	if beyond, _ := v.log(id, 1<<40, 0); beyond.Count != 0 || beyond.From != more.From+more.Count {
		v.Errorf("beyond the end: %d entries from %d", beyond.Count, beyond.From)
	}
}

func testMalformed(v *vm) {
	nonce := make([]byte, 32)
	for name, r := range map[string]struct {
		op      uint8
		request any
	}{
		"an unknown request":           {99, nil},
		"a request without content":    {agentproto.OpQuote, nil},
		"a nonce of 31 bytes":          {agentproto.OpQuote, agentproto.Quote{Nonce: nonce[1:], Selection: []attest.PCRSelection{allPCRs}}},
		"no PCRs":                      {agentproto.OpQuote, agentproto.Quote{Nonce: nonce}},
		"a bank that is not there":     {agentproto.OpQuote, agentproto.Quote{Nonce: nonce, Selection: []attest.PCRSelection{{Alg: attest.SHA512, PCRs: []uint8{0}}}}},
		"PCR 24":                       {agentproto.OpQuote, agentproto.Quote{Nonce: nonce, Selection: []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{24}}}}},
		"a credential of nothing":      {agentproto.OpActivate, agentproto.Activate{}},
		"another request's content":    {agentproto.OpIMA, agentproto.Quote{Nonce: nonce}},
		"an entry larger than allowed": {agentproto.OpIMA, agentproto.Log{Max: 10}},
	} {
		if _, err := ask[agentproto.Hello](v, r.op, r.request); code(err) != channel.CodeBadRequest {
			v.Errorf("%s: %v", name, err)
		}
	}
	must[agentproto.Hello](v, agentproto.OpHello, nil)
}

func testLongList(v *vm) {
	id := must[agentproto.Hello](v, agentproto.OpHello, nil).BootID
	v.run("cat " + guest.Samples + "/* > /dev/null")
	ak := v.ak()
	proven := v.quoted(ak)
	start := time.Now()
	all, chunks := v.log(id, 0, 0)
	whole := time.Since(start)
	if chunks < 4 || all.Count < 2000 {
		v.Fatalf("%d entries in %d chunks", all.Count, chunks)
	}
	proof, err := measurement.Replay(all, measurement.State{}, proven.Banks, measurement.Options{})
	if err != nil {
		v.Fatal(err)
	}
	start = time.Now()
	const times = 20
	for range times {
		if seg, _ := v.log(id, proof.State.Count, 0); seg.Count != 0 {
			v.Fatalf("%d new entries", seg.Count)
		}
	}
	next := time.Since(start) / times
	v.Logf("whole list of %d entries, %d bytes: %v; nothing new: %v", all.Count, len(all.Data), whole, next)
	if next > whole/4 {
		v.Errorf("an increment without entries takes %v, the whole list %v", next, whole)
	}
}

// The guest extends PCR 10 as fast as it can: log and quote race (keylime 585, PR 769).
func testMovingPCR(v *vm) {
	ak := v.ak()
	v.run("mount -t ramfs none /mnt") // which ima_policy=tcb does measure
	v.run("(i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i > /mnt/f$i; read x < /mnt/f$i; done) > /dev/null 2>&1 &")
	before, _ := v.log("", 0, 0)
	for range 10 {
		v.quoted(ak)
	}
	proven := v.quoted(ak)
	seg, _ := v.log("", 0, 0)
	if _, err := measurement.Replay(seg, measurement.State{}, proven.Banks, measurement.Options{}); err != nil {
		v.Fatal(err)
	}
	if seg.Count == before.Count {
		v.Error("PCR 10 did not move")
	}
	v.Logf("%d entries came meanwhile", seg.Count-before.Count)
}

// raw takes the port's place and talks to the agent byte by byte.
func (v *vm) raw(talk func(net.Conn)) {
	v.Helper()
	v.stop()
	_ = os.Remove(v.sock)
	ln, err := net.Listen("unix", v.sock)
	if err != nil {
		v.Fatal(err)
	}
	_ = ln.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second))
	conn, err := ln.Accept()
	if err != nil {
		v.Fatal(err)
	}
	talk(conn)
	conn.Close()
	ln.Close()
	v.serve()
}

func testReconnect(v *vm) {
	for _, n := range []int{15, 1000, 30000} {
		v.raw(func(c net.Conn) {
			half := channel.Frame{Kind: channel.Request, Op: agentproto.OpQuote, ID: 1, Payload: make([]byte, 60000)}.Append(nil)[:n]
			if _, err := c.Write(half); err != nil {
				v.Error(err)
			}
		})
		v.connected(20 * time.Second)
		must[agentproto.Hello](v, agentproto.OpHello, nil)
	}
	v.quoted(v.ak())
}

func testHostFlood(v *vm) {
	oversized := []byte("VATT\x01\x01\x04\x00\x00\x00\x00\x01\xff\xff\xff\xff")
	v.raw(func(c net.Conn) {
		_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
		for _, b := range [][]byte{
			bytes.Repeat([]byte{0xff}, 300000),
			bytes.Repeat(oversized, 4096),
			bytes.Repeat([]byte("VATT\x01\x01\x04\x00\x00\x00\x00\x01\x00\x00\xff\x00"), 8192),
			bytes.Repeat(channel.Frame{Kind: channel.Response, Op: 1, ID: 1}.Append(nil), 2000),
		} {
			if _, err := c.Write(b); err != nil {
				v.Errorf("the agent does not read: %v", err)
			}
		}
	})
	v.connected(20 * time.Second)
	must[agentproto.Hello](v, agentproto.OpHello, nil)
	rss := strings.Fields(v.run("grep VmRSS /proc/$(pidof virt-attest-guest)/status"))
	v.Logf("agent's resident memory: %v", rss)
	if n := 0; len(rss) < 2 || sscan(rss[1], &n) != nil || n > 32<<10 {
		v.Errorf("resident memory %v", rss)
	}
}

// Guest root owns the port: it can take it from the agent and send what it likes.
func testGuestFlood(v *vm) {
	v.run("kill -9 $(pidof virt-attest-guest); sleep 1; timeout 2 cat /dev/zero > /dev/vport0p1; true")
	if v.slowed.Load() == 0 {
		v.Error("the flood was not slowed down")
	}
	v.run("pidof virt-attest-guest || (" + guest.AgentPath + " -v >> /run/agent.log 2>&1 &)")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		_, err := ask[agentproto.Hello](v, agentproto.OpHello, nil)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			v.Fatal(err)
		}
	}
	v.quoted(v.ak())
}

func sscan(s string, n *int) error { _, err := fmt.Sscan(s, n); return err }

func testStuckAgent(v *vm) {
	v.run("kill -STOP $(pidof virt-attest-guest)")
	start := time.Now()
	if _, err := v.port.Request(v.within(300*time.Millisecond), agentproto.OpHello, nil); code(err) != channel.CodeTimeout {
		v.Error(err)
	}
	if d := time.Since(start); d > 2*time.Second {
		v.Errorf("a deadline of 0.3 s took %v", d)
	}
	if _, err := v.port.Request(v.within(time.Minute), agentproto.OpHello, nil); code(err) != channel.CodeUnavailable {
		v.Error(err)
	}
	v.run("kill -CONT $(pidof virt-attest-guest)")
	for end := time.Now().Add(30 * time.Second); ; {
		_, err := ask[agentproto.Hello](v, agentproto.OpHello, nil)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			v.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func testAgentKilled(v *vm) {
	v.run("kill -9 $(pidof virt-attest-guest)")
	if _, err := v.port.Request(v.within(300*time.Millisecond), agentproto.OpHello, nil); code(err) != channel.CodeTimeout {
		v.Error(err)
	}
	v.run(guest.AgentPath + " -v >> /run/agent.log 2>&1 &")
	v.connected(20 * time.Second)
	v.quoted(v.ak())
}

func TestAgent_runs_from_an_initramfs(t *testing.T) {
	if !needsVM(t) {
		return
	}
	v := boot(t, guest.Options{InInitrd: true})
	must[agentproto.Hello](v, agentproto.OpHello, nil)
	proven := v.quoted(v.ak())
	seg, _ := v.log("", 0, 0)
	if _, err := measurement.Replay(seg, measurement.State{}, proven.Banks, measurement.Options{}); err != nil {
		t.Fatal(err)
	}
}
