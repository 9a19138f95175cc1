package ptpm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-tpm/tpm2"
	"go.uber.org/goleak"

	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmtest"
)

// step is what the scripted device does with one command.
type step struct {
	rsp      []byte        // in answer
	split    bool          // handed out byte by byte
	delay    time.Duration // before the answer
	writeErr error
	readErr  error
}

// device is a scripted TPM device: it takes one step per command.
type device struct {
	steps  []step
	opened int
	seen   int
}

func (d *device) open(context.Context) (io.ReadWriteCloser, error) {
	d.opened++
	if len(d.steps) > 0 && d.steps[0].rsp == nil && d.steps[0].readErr == nil && d.steps[0].writeErr == nil {
		d.steps = d.steps[1:]
		return nil, os.ErrNotExist
	}
	return &handle{d: d, closed: make(chan struct{})}, nil
}

type handle struct {
	d      *device
	r      io.Reader
	closed chan struct{}
}

func (h *handle) Write(p []byte) (int, error) {
	s := h.d.steps[0]
	h.d.steps = h.d.steps[1:]
	if s.writeErr != nil {
		return 0, s.writeErr
	}
	h.d.seen++
	if s.delay > 0 {
		select {
		case <-time.After(s.delay):
		case <-h.closed:
			return 0, os.ErrClosed
		}
	}
	h.r = bytes.NewReader(s.rsp)
	if s.split {
		h.r = iotest.OneByteReader(h.r)
	}
	if s.readErr != nil {
		h.r = iotest.ErrReader(s.readErr)
	}
	return len(p), nil
}

func (h *handle) Read(p []byte) (int, error) { return h.r.Read(p) }

func (h *handle) Close() error {
	select {
	case <-h.closed:
	default:
		close(h.closed)
	}
	return nil
}

func response(rc tpm2.TPMRC, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, 0x8001)
	b = binary.BigEndian.AppendUint32(b, uint32(10+len(body)))
	return append(binary.BigEndian.AppendUint32(b, uint32(rc)), body...)
}

var (
	getRandom = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 4}
	fine      = response(0, 0, 4, 1, 2, 3, 4)
)

func send(t *testing.T, d *device, timeout time.Duration) ([]byte, error) {
	t.Helper()
	tpm := ptpm.New("scripted", d.open, timeout)
	defer func() {
		if err := tpm.Close(); err != nil {
			t.Error(err)
		}
	}()
	return tpm.Send(getRandom)
}

// F10: what a physical TPM does to its user.
func TestSend_survives_a_TPM_that_asks_for_patience(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCCanceled} {
		d := &device{steps: []step{{rsp: response(rc)}, {rsp: response(rc)}, {rsp: fine}}}
		if rsp, err := send(t, d, time.Second); err != nil || !bytes.Equal(rsp, fine) || d.seen != 3 {
			t.Errorf("%v: %x, %v after %d commands", rc, rsp, err, d.seen)
		}
	}
}

func TestSend_gives_up_patience_at_its_deadline(t *testing.T) {
	defer goleak.VerifyNone(t)
	steps := make([]step, 1000)
	for i := range steps {
		steps[i].rsp = response(tpm2.TPMRCRetry)
	}
	_, err := send(t, &device{steps: steps}, 50*time.Millisecond)
	if !errors.Is(err, ptpm.ErrBusy) || !errors.Is(err, tpm2.TPMRCRetry) {
		t.Fatal(err)
	}
}

func TestSend_hands_every_other_response_to_the_caller(t *testing.T) {
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCLockout, tpm2.TPMRCObjectMemory, tpm2.TPMRCFailure, tpm2.TPMRCReboot} {
		d := &device{steps: []step{{rsp: response(rc)}}}
		if rsp, err := send(t, d, time.Second); err != nil || !bytes.Equal(rsp, response(rc)) {
			t.Errorf("%v: %x, %v", rc, rsp, err)
		}
	}
}

func TestSend_puts_a_response_in_pieces_together(t *testing.T) {
	if rsp, err := send(t, &device{steps: []step{{rsp: fine, split: true}}}, time.Second); err != nil || !bytes.Equal(rsp, fine) {
		t.Fatalf("%x, %v", rsp, err)
	}
}

func TestSend_refuses_what_is_no_response(t *testing.T) {
	lying := bytes.Clone(fine)
	binary.BigEndian.PutUint32(lying[2:], 0xffffffff)
	short := bytes.Clone(fine)
	binary.BigEndian.PutUint32(short[2:], 9)
	for name, b := range map[string][]byte{
		"4 GiB announced":      lying,
		"less than a header":   short,
		"bytes behind the end": append(bytes.Clone(fine), 0),
		"two responses":        append(bytes.Clone(fine), fine...),
	} {
		if rsp, err := send(t, &device{steps: []step{{rsp: b}}}, time.Second); !errors.Is(err, ptpm.ErrFrame) || rsp != nil {
			t.Errorf("%s: %x, %v", name, rsp, err)
		}
	}
	if _, err := send(t, &device{steps: []step{{rsp: fine[:12]}}}, time.Second); !errors.Is(err, ptpm.ErrUnavailable) {
		t.Errorf("cut off: %v", err)
	}
}

func TestSend_refuses_malformed_commands_before_the_TPM_sees_them(t *testing.T) {
	d := &device{}
	tpm := ptpm.New("scripted", d.open, time.Second)
	for _, c := range [][]byte{nil, getRandom[:9], getRandom[:11], append(bytes.Clone(getRandom), 0), make([]byte, 5000)} {
		if _, err := tpm.Send(c); !errors.Is(err, ptpm.ErrFrame) || d.opened != 0 {
			t.Errorf("%d bytes: %v", len(c), err)
		}
	}
}

func TestSend_opens_the_device_anew_after_a_failure(t *testing.T) {
	defer goleak.VerifyNone(t)
	d := &device{steps: []step{{rsp: fine}, {readErr: os.ErrClosed}, {}, {rsp: fine}, {writeErr: os.ErrClosed}, {rsp: fine}}}
	tpm := ptpm.New("scripted", d.open, time.Second)
	for i, want := range []error{nil, ptpm.ErrUnavailable, ptpm.ErrUnavailable, nil, nil} {
		if _, err := tpm.Send(getRandom); !errors.Is(err, want) {
			t.Errorf("command %d: %v, want %v", i, err, want)
		}
	}
	if d.opened != 4 { // first, gone, back, and after the write that failed
		t.Errorf("opened %d times", d.opened)
	}
	if err := tpm.Close(); err != nil {
		t.Error(err)
	}
}

// A TPM that takes 10 s for a command delays its user, and no second command is piled on it.
func TestSend_leaves_a_command_that_takes_too_long(t *testing.T) {
	defer goleak.VerifyNone(t)
	d := &device{steps: []step{{rsp: fine, delay: time.Hour}, {rsp: fine}}}
	tpm := ptpm.New("scripted", d.open, 20*time.Millisecond)
	if _, err := tpm.Send(getRandom); !errors.Is(err, ptpm.ErrTimeout) {
		t.Fatal(err)
	}
	if _, err := tpm.Send(getRandom); err != nil {
		t.Fatalf("after it: %v", err)
	}
	if err := tpm.Close(); err != nil {
		t.Error(err)
	}
}

func TestSendContext_ends_with_its_context(t *testing.T) {
	d := &device{steps: []step{{rsp: fine, delay: time.Hour}}}
	tpm := ptpm.New("scripted", d.open, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := tpm.With(ctx).Send(getRandom); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := tpm.Close(); err != nil {
		t.Error(err)
	}
}

func TestDevice_says_what_to_do_when_there_is_no_TPM(t *testing.T) {
	_, err := ptpm.Device(filepath.Join(t.TempDir(), "tpmrm0")).Send(getRandom)
	if !errors.Is(err, ptpm.ErrUnavailable) || !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestSocket_leaves_the_TPM_to_others_between_commands(t *testing.T) {
	path := tpmtest.Socket(t)
	a, b := ptpm.Socket(path), ptpm.Socket(path)
	for range 5 {
		for _, tpm := range []*ptpm.TPM{a, b} {
			if rsp, err := tpm.Send(getRandom); err != nil || len(rsp) != 16 {
				t.Fatalf("%x, %v", rsp, err)
			}
		}
	}
}

func TestSocket_survives_the_death_of_the_software_TPM(t *testing.T) {
	p := tpmtest.Start(t)
	tpm := ptpm.Socket(p.Path())
	if _, err := tpmkeys.ReadEK(tpm); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if _, err := tpmkeys.ReadEK(tpm); !errors.Is(err, ptpm.ErrUnavailable) {
		t.Fatal(err)
	}
}

func FuzzExchange(f *testing.F) {
	f.Add(fine)
	f.Add(response(tpm2.TPMRCRetry))
	f.Add(fine[:9])
	f.Fuzz(func(t *testing.T, b []byte) {
		rsp, err := ptpm.Exchange(struct {
			io.Reader
			io.Writer
		}{iotest.HalfReader(bytes.NewReader(b)), io.Discard}, getRandom)
		if err == nil && (len(rsp) < 10 || int(binary.BigEndian.Uint32(rsp[2:])) != len(rsp)) {
			t.Errorf("took %x for a response", rsp)
		}
	})
}

func BenchmarkSocket(b *testing.B) {
	p := tpmtest.Start(b)
	for name, tpm := range map[string]interface {
		Send([]byte) ([]byte, error)
	}{"connection-per-command": ptpm.Socket(p.Path())} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := tpm.Send(getRandom); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	c, err := p.Dial()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	b.Run("one-connection", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Send(getRandom); err != nil {
				b.Fatal(err)
			}
		}
	})
}
