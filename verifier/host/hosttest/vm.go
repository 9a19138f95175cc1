package hosttest

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/ledger"
	"virt-attest/internal/sidecarproto"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
)

// VTPM is a swtpm with its attestation key, for one VM or, where only cost matters, for many.
type VTPM struct {
	*tpmtest.TPM
	mu sync.Mutex
	ak *tpmkeys.AK
	ek []byte
}

// NewVTPM starts a vTPM.
func NewVTPM(t testing.TB, opts ...tpmtest.Option) *VTPM {
	t.Helper()
	v := &VTPM{TPM: tpmtest.New(t, opts...)}
	v.load(t)
	return v
}

func (v *VTPM) load(t testing.TB) {
	t.Helper()
	var err error
	if v.ek, err = tpmkeys.ReadEK(v); err == nil {
		v.ak, err = tpmkeys.CreateAK(v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// VM is a running VM: a sidecar's end of internal/sidecarproto with a real vTPM, a real store and
// a guest agent behind it. Change its fields with Do while it runs.
type VM struct {
	UUID   attest.UUID
	VTPM   *VTPM
	Writer *ledger.Writer

	State    sidecarproto.VTPMState
	BootID   string
	IMA      []byte                 // binary list with SHA-1 template digests
	BootLog  []byte                 //
	Software *sidecarproto.Software // nil: a sidecar that does not know the request
	NoRecord bool                   // the vTPM's quotes leave no record
	Agent    channel.Handler        // instead of the honest one
	Sidecar  channel.Handler        // instead of the honest one

	mu       sync.Mutex
	inFlight uint64
	listener net.Listener
	conns    map[net.Conn]bool
	group    sync.WaitGroup
	dir      string
}

// Do changes the VM.
func (v *VM) Do(f func(*VM)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(v)
}

// StartVM starts the VM's sidecar below the runtime directory run, with its store below store.
func StartVM(t testing.TB, run, store string, id attest.UUID, tpm *VTPM) *VM {
	t.Helper()
	w, err := ledger.OpenWriter(store, id, ledger.Options{})
	if err == nil {
		_, err = w.PowerOn("cold")
	}
	if err != nil {
		t.Fatal(err)
	}
	v := &VM{UUID: id, VTPM: tpm, Writer: w, State: sidecarproto.VTPMRunning, BootID: "boot-1", dir: filepath.Join(run, id.String())}
	v.Listen(t)
	t.Cleanup(func() {
		v.Crash()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// Listen makes the sidecar's socket and serves it.
func (v *VM) Listen(t testing.TB) {
	t.Helper()
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(v.dir, sidecarproto.SidecarSocket))
	if err != nil {
		t.Fatal(err)
	}
	v.Do(func(v *VM) { v.listener, v.conns = l, make(map[net.Conn]bool) })
	v.group.Go(func() { v.accept(l) })
}

// Crash ends the sidecar with all its connections.
func (v *VM) Crash() {
	v.Do(func(v *VM) {
		_ = v.listener.Close()
		for c := range v.conns {
			_ = c.Close()
		}
	})
	v.group.Wait()
}

func (v *VM) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		v.Do(func(v *VM) { v.conns[c] = true })
		v.group.Go(func() {
			defer func() { _ = c.Close() }()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = channel.Serve(ctx, c, sidecarproto.MaxPayload, v.handle)
			v.Do(func(v *VM) { delete(v.conns, c) })
		})
	}
}

func (v *VM) handle(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
	var other channel.Handler
	v.Do(func(v *VM) { other = v.Sidecar })
	if other != nil {
		return other(ctx, op, payload)
	}
	return v.Honest(ctx, op, payload)
}

// Honest is what a sidecar does.
func (v *VM) Honest(ctx context.Context, op uint8, payload []byte) ([]byte, error) {
	switch op {
	case sidecarproto.OpInfo:
		seq, head := v.Writer.Head()
		info := sidecarproto.Info{UUID: v.UUID, Version: "test", Epoch: v.Writer.Epoch(), Agent: true, StoreSeq: seq, StoreHead: head[:], RolledBack: v.Writer.RolledBack()}
		v.Do(func(v *VM) { info.VTPM = v.State })
		return channel.Encode(info)
	case sidecarproto.OpEK:
		return channel.Encode(sidecarproto.EK{Public: v.VTPM.ek})
	case sidecarproto.OpPCRs:
		return v.pcrs()
	case sidecarproto.OpExpect:
		var e sidecarproto.Expect
		if err := channel.Decode(payload, &e); err != nil {
			return nil, err
		}
		return nil, v.Writer.Expect(e.ExtraData, time.Now().Add(time.Duration(e.ExpiresIn)*time.Second))
	case sidecarproto.OpAgent:
		return v.relay(ctx, payload)
	case sidecarproto.OpSoftware:
		return v.software()
	}
	return nil, fmt.Errorf("op %d", op)
}

func (v *VM) software() ([]byte, error) {
	var s *sidecarproto.Software
	v.Do(func(v *VM) { s = v.Software })
	if s == nil {
		return nil, &channel.RemoteError{Code: channel.CodeBadRequest, Message: "unknown request 6"}
	}
	return channel.Encode(s)
}

func (v *VM) pcrs() ([]byte, error) {
	v.VTPM.mu.Lock()
	defer v.VTPM.mu.Unlock()
	sel, err := tpmkeys.AllocatedBanks(v.VTPM)
	if err != nil {
		return nil, err
	}
	banks, err := tpmkeys.ReadPCRs(v.VTPM, sel)
	if err != nil {
		return nil, err
	}
	return channel.Encode(sidecarproto.PCRs{Epoch: v.Writer.Epoch(), Banks: banks})
}

func (v *VM) relay(ctx context.Context, payload []byte) ([]byte, error) {
	var a sidecarproto.Agent
	if err := channel.Decode(payload, &a); err != nil {
		return nil, err
	}
	agent := v.HonestAgent
	v.Do(func(v *VM) {
		if v.Agent != nil {
			agent = v.Agent
		}
	})
	ctx, cancel := context.WithTimeout(ctx, time.Duration(a.TimeoutMS)*time.Millisecond)
	defer cancel()
	b, err := agent(ctx, a.Op, a.Payload)
	if ctx.Err() != nil {
		return nil, &channel.RemoteError{Code: channel.CodeTimeout, Message: "the agent did not answer"}
	}
	if err != nil {
		return channel.Encode(sidecarproto.AgentAnswer{Error: err.Error()})
	}
	return channel.Encode(sidecarproto.AgentAnswer{Payload: b})
}

// HonestAgent is what the guest's agent does.
func (v *VM) HonestAgent(_ context.Context, op uint8, payload []byte) ([]byte, error) {
	var bootID string
	v.Do(func(v *VM) { bootID = v.BootID })
	switch op {
	case agentproto.OpHello:
		return channel.Encode(agentproto.Hello{Version: "test", Kernel: "6.1", BootID: bootID})
	case agentproto.OpIdentity:
		return channel.Encode(agentproto.Identity{EK: v.VTPM.ek, AK: v.VTPM.ak.Public})
	case agentproto.OpActivate:
		return v.activate(payload)
	case agentproto.OpQuote:
		return v.quote(payload)
	case agentproto.OpIMA:
		return v.ima(payload)
	case agentproto.OpBootLog:
		return v.bootLog(payload)
	}
	return nil, fmt.Errorf("op %d", op)
}

func (v *VM) activate(payload []byte) ([]byte, error) {
	var a agentproto.Activate
	if err := channel.Decode(payload, &a); err != nil {
		return nil, err
	}
	v.VTPM.mu.Lock()
	defer v.VTPM.mu.Unlock()
	secret, err := tpmkeys.Activate(v.VTPM, v.VTPM.ak, a.CredentialBlob, a.Secret)
	if err != nil {
		return nil, err
	}
	return channel.Encode(agentproto.Activated{Secret: secret})
}

func (v *VM) quote(payload []byte) ([]byte, error) {
	var q agentproto.Quote
	if err := channel.Decode(payload, &q); err != nil {
		return nil, err
	}
	got, banks, err := v.Quote(q.Nonce, q.Selection)
	if err != nil {
		return nil, err
	}
	return channel.Encode(agentproto.Quoted{Parameters: got.Parameters(), PCRs: banks})
}

// Quote makes the vTPM quote, as any program in the guest can, and the record of it.
func (v *VM) Quote(nonce []byte, selection []attest.PCRSelection) (attest.Quote, []attest.PCRBank, error) {
	v.VTPM.mu.Lock()
	defer v.VTPM.mu.Unlock()
	return tpmkeys.Quote(&recorder{TPM: v.VTPM, vm: v}, v.VTPM.ak, nonce, selection)
}

// recorder stands between guest and vTPM, as the sidecar does.
type recorder struct {
	transport.TPM
	vm *VM
}

func (r *recorder) Send(command []byte) ([]byte, error) {
	rsp, err := r.TPM.Send(command)
	var off bool
	r.vm.Do(func(v *VM) { off = v.NoRecord; v.inFlight++ })
	if err != nil || off || tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) != tpm2.TPMCCQuote || binary.BigEndian.Uint32(rsp[6:]) != 0 {
		return rsp, err
	}
	q, err := attest.ParseQuoteParameters(rsp[14 : 14+binary.BigEndian.Uint32(rsp[10:])])
	if err != nil {
		return nil, err
	}
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Attest)
	if err != nil {
		return nil, err
	}
	return rsp, r.vm.Writer.Quote(ledger.Quote{InFlight: r.vm.inFlight, Hash: q.Hash(), ExtraData: a.ExtraData.Buffer, Signer: a.QualifiedSigner.Buffer})
}

func (v *VM) ima(payload []byte) ([]byte, error) {
	var l agentproto.Log
	if err := channel.Decode(payload, &l); err != nil {
		return nil, err
	}
	var list []byte
	k := agentproto.LogChunk{TemplateHash: attest.SHA1}
	v.Do(func(v *VM) { list, k.BootID = v.IMA, v.BootID })
	if l.BootID == k.BootID {
		k.From = l.From
	}
	i := uint64(0)
	for ; len(list) > 0; i++ {
		n, err := measurement.NextEntry(list, 20)
		if err != nil {
			return nil, err
		}
		if i >= k.From {
			if k.More = len(k.Data)+n > agentproto.MaxChunk; k.More {
				break
			}
			k.Data = append(k.Data, list[:n]...)
			k.Count++
		}
		list = list[n:]
	}
	if !k.More {
		k.From = min(k.From, i) // beyond the end there is nothing
	}
	return channel.Encode(k)
}

func (v *VM) bootLog(payload []byte) ([]byte, error) {
	var l agentproto.Log
	if err := channel.Decode(payload, &l); err != nil {
		return nil, err
	}
	var log []byte
	v.Do(func(v *VM) { log = v.BootLog })
	if l.From > uint64(len(log)) {
		return nil, fmt.Errorf("no byte %d", l.From)
	}
	rest := log[l.From:]
	data := rest[:min(len(rest), agentproto.MaxChunk)]
	return channel.Encode(agentproto.LogChunk{From: l.From, Count: uint64(len(data)), Data: data, More: len(data) < len(rest)})
}
