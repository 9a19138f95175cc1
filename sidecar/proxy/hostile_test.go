package proxy_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/ledger"
	"virt-attest/internal/sidecarproto"
	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/proxy"
	"virt-attest/sidecar/sidecartest"
)

func frame(tag uint16, size uint32, code uint32, rest ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, size)
	return append(binary.BigEndian.AppendUint32(b, code), rest...)
}

// pcrExtend17 succeeds at locality 4 only: what a smuggled prefix would make possible.
var pcrExtend17 = append([]byte{0x80, 2, 0, 0, 0, 65, 0, 0, 1, 0x82, 0, 0, 0, 17, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x0b}, make([]byte, 32)...)

func TestProxy_refuses_frames_that_swtpm_would_misread(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	prefixed := append([]byte{0, 0, 0, 8, 4, 0, 0, 0, 65}, pcrExtend17...)
	for _, c := range []struct {
		name  string
		frame []byte
		want  tpmwire.RC
	}{
		{"a locality prefix before a command", prefixed, tpmwire.RCBadTag},
		{"a locality prefix alone", []byte{0, 0, 0, 8, 4, 0, 0, 0, 0}, tpmwire.RCBadTag},
		{"a locality prefix of 0xLLS0 bytes as TIS lets through", append([]byte{0, 0, 0, 8, 4, 0x40, 0, 0, 0}, make([]byte, 0x440-9)...), tpmwire.RCBadTag},
		{"two commands at once", append(bytes.Clone(getRandom), getRandom...), tpmwire.RCCommandSize},
		{"a quote behind a harmless command", append(bytes.Clone(getRandom), frame(0x8002, 30, 0x158, make([]byte, 20)...)...), tpmwire.RCCommandSize},
		{"a command with bytes behind it", append(bytes.Clone(getRandom), 0), tpmwire.RCCommandSize},
		{"a size below the header's", frame(0x8001, 9, 0x17b), tpmwire.RCCommandSize},
		{"a size of 4 GiB", frame(0x8001, 0xffffffff, 0x17b), tpmwire.RCCommandSize},
		{"more than the negotiated buffer", frame(0x8001, 4000, 0x17b, make([]byte, 3990)...), tpmwire.RCCommandSize},
		{"more than any buffer", frame(0x8001, 100_000, 0x17b, make([]byte, 8000)...), tpmwire.RCCommandSize},
		{"swtpm's own command that sets the locality", frame(0x8001, 11, 0x20001000, 4), tpmwire.RCCommandCode},
		{"half a command and no more", getRandom[:11], tpmwire.RCCommandSize},
		{"half a header and no more", getRandom[:4], tpmwire.RCCommandSize},
		{"a response's tag", frame(0x00c4, 10, 0), tpmwire.RCBadTag},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := r.Counters().Refused
			b, err := q.Command(c.frame)
			if err != nil || tpmwire.RCOf(b) != c.want {
				t.Errorf("%x %v, want %v", b, err, c.want)
			}
			if n := r.Counters().Refused; n != before+1 {
				t.Errorf("%d refused", n-before)
			}
			if b, err = q.Command(getRandom); err != nil || tpmwire.RCOf(b) != 0 {
				t.Fatalf("the next command: %x %v", b, err)
			}
		})
	}
	if b, err := q.Command(pcrExtend17); err != nil || tpmwire.RCOf(b) != 0x907 {
		t.Errorf("PCR 17 after all that: %x %v: the locality has changed", b, err)
	}
}

func TestProxy_puts_a_split_command_together(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	for cut := 1; cut < len(getRandom); cut++ {
		if _, err := unix.Write(q.Data, getRandom[:cut]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
		if b, err := q.Command(getRandom[cut:]); err != nil || len(b) != 28 {
			t.Fatalf("cut at %d: %x %v", cut, b, err)
		}
	}
}

func TestProxy_with_a_QEMU_that_stalls_serves_everybody_else(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	for name, stall := range map[string]func() error{
		"in the middle of a command": func() error { _, err := unix.Write(q.Data, getRandom[:5]); return err },
		"without reading responses": func() error {
			_ = unix.SetNonblock(q.Data, true)
			for {
				if _, err := unix.Write(q.Data, getRandom); err == unix.EAGAIN {
					return nil
				} else if err != nil {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := stall(); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if err := r.probe(5 * time.Second); err != nil {
					t.Fatalf("own command: %v", err)
				}
				if _, err := q.Do(swtpmctl.CancelTPMCmd); err != nil {
					t.Fatalf("control command: %v", err)
				}
			}
		})
	}
}

func TestProxy_refuses_control_messages_that_break_swtpm(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	blob := func(length uint32, data ...byte) []byte {
		var b []byte
		for _, w := range []uint32{uint32(swtpmctl.SetStateBlob), 0, 1, length} {
			b = binary.BigEndian.AppendUint32(b, w)
		}
		return append(b, data...)
	}
	for _, c := range []struct {
		name    string
		request []byte
	}{
		{"CVE-2026-75900: a state blob of 8 bytes", blob(8, make([]byte, 8)...)},
		{"CVE-2022-23645: a blob whose header is larger than the blob", blob(12, 2, 1, 0xff, 0xff, 0, 0, 0, 0, 0, 12, 0, 0)},
		{"a blob whose header is smaller than a header", blob(12, 2, 1, 0, 4, 0, 0, 0, 0, 0, 12, 0, 0)},
		{"a blob whose total size is another", blob(12, 2, 1, 0, 10, 0, 0, 0, 0, 1, 0, 0, 0)},
		{"a blob of 4 GiB", blob(0xffffffff)},
		{"a blob of no type", func() []byte { b := blob(0); b[11] = 9; return b }()},
		{"an unknown command", []byte{0, 0, 0x12, 0x34, 1, 2, 3, 4}},
		{"hash data of 4 GiB", []byte{0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff}},
		{"a locality that does not exist", []byte{0, 0, 0, 5, 5, 0, 0, 0}},
		{"an INIT with unknown flags", []byte{0, 0, 0, 2, 0xff, 0, 0, 0}},
		{"SET_DATAFD without a descriptor", []byte{0, 0, 0, 0x10}},
		{"state of no type", []byte{0, 0, 0, 0x0c, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := q.Request(c.request)
			if !errors.As(err, new(sidecartest.ResultError)) {
				t.Errorf("%v, want an error reply", err)
			}
			if b, err := q.Command(getRandom); err != nil || tpmwire.RCOf(b) != 0 {
				t.Fatalf("the guest's TPM afterwards: %x %v", b, err)
			}
			if _, err := q.Do(swtpmctl.GetCapability); err != nil {
				t.Fatalf("control afterwards: %v", err)
			}
		})
	}
	if r.VTPM() != sidecarproto.VTPMRunning {
		t.Errorf("vTPM is %s", r.VTPM())
	}
}

func TestProxy_refuses_a_second_QEMU_and_a_second_data_socket(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	if _, err := sidecartest.Connect(r.socket); err == nil {
		t.Error("a second QEMU was let in")
	}
	data := q.Data
	if err := q.PassData(); !errors.Is(err, sidecartest.ResultError(swtpmctl.IOError)) {
		t.Errorf("a second data socket: %v", err)
	}
	unix.Close(q.Data)
	q.Data = data
	if b, err := q.Command(getRandom); err != nil || tpmwire.RCOf(b) != 0 {
		t.Errorf("the first one afterwards: %x %v", b, err)
	}
}

func TestProxy_outlives_swtpm_and_the_guest_gets_its_TPM_back_by_a_reset_CVE_2025_49133(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	r.swtpm.Kill()
	b, err := q.Command(getRandom)
	if err != nil || tpmwire.RCOf(b) != tpmwire.RCFailure {
		t.Fatalf("with swtpm dead: %x %v", b, err)
	}
	within(t, "state dead", func() bool { return r.VTPM() == sidecarproto.VTPMDead })
	if err := r.probe(time.Second); !errors.Is(err, proxy.ErrNotRunning) {
		t.Errorf("own command: %v", err)
	}
	if b, err := q.Do(swtpmctl.GetTPMEstablished); err != nil || len(b) != 8 {
		t.Errorf("GET_TPMESTABLISHED: %x %v", b, err)
	}
	if _, err := q.Do(swtpmctl.GetStateBlob, 1, 1, 0); !errors.Is(err, sidecartest.ResultError(swtpmctl.Fail)) {
		t.Errorf("GET_STATEBLOB: %v, want a failure of full length", err)
	}
	started := make(chan struct{})
	go func() {
		defer close(started)
		time.Sleep(100 * time.Millisecond)
		r.swtpm.Start(t)
	}()
	err = q.Reset() // waits for the new swtpm
	<-started
	if err != nil {
		t.Fatalf("reset: %v", err)
	}
	if err := q.Startup(); err != nil {
		t.Fatalf("startup: %v", err)
	}
	if err := r.probe(time.Second); err != nil {
		t.Errorf("own command: %v", err)
	}
}

func TestProxy_reads_on_its_own_only_while_the_guest_runs_its_TPM(t *testing.T) {
	r := newRig(t)
	q, err := sidecartest.Connect(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(when string) {
		t.Helper()
		if err := r.probe(time.Second); !errors.Is(err, proxy.ErrNotRunning) {
			t.Errorf("%s: %v", when, err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(q.Probe())
	refused("before INIT")
	must(q.Reset())
	refused("before TPM2_Startup")
	must(q.Startup())
	must(r.probe(time.Second))
	must(q.Shutdown())
	refused("after TPM2_Shutdown")
	if _, err := q.Command(getRandom); err != nil {
		t.Fatal(err)
	}
	must(r.probe(time.Second))
	q.Close()
	within(t, "state off", func() bool { return r.VTPM() == sidecarproto.VTPMOff })
	refused("after QEMU's end")
	r.connect(t)
	must(r.probe(time.Second))
}

var pcr0 = []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0}}}

type sender struct{ *sidecartest.QEMU }

func (s sender) Send(b []byte) ([]byte, error) { return s.Command(b) }

func TestProxy_keeps_the_awaited_record_under_a_flood_of_quotes(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	ak, err := tpmkeys.CreateAK(sender{q})
	if err != nil {
		t.Fatal(err)
	}
	awaited := bytes.Repeat([]byte{7}, 32)
	if err := r.book.Expect(awaited, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tpmkeys.Quote(sender{q}, ak, awaited, pcr0); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		nonce := binary.BigEndian.AppendUint32(make([]byte, 28), uint32(i))
		if _, _, err := tpmkeys.Quote(sender{q}, ak, nonce, pcr0); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.Counters(); n.Quotes != 301 || n.Unstored != 0 {
		t.Errorf("%+v", n)
	}
	if rec, err := ledger.Find(r.store, testUUID, awaited); err != nil || !rec.Awaited {
		t.Errorf("the awaited record: %+v %v", rec, err)
	}
	if err := r.probe(time.Second); err != nil {
		t.Error(err)
	}
}

// brokenLedger is a store on a disk that is full.
type brokenLedger struct{ epoch uint64 }

func (b *brokenLedger) Epoch() uint64                  { return b.epoch }
func (b *brokenLedger) PowerOn(string) (uint64, error) { return 0, unix.ENOSPC }
func (b *brokenLedger) Taken(attest.Digest) error      { return unix.ENOSPC }
func (b *brokenLedger) Used() error                    { return unix.ENOSPC }
func (b *brokenLedger) Restoring(attest.Digest) string { return ledger.CauseArrival }
func (b *brokenLedger) Quote(ledger.Quote) error       { return unix.ENOSPC }

func TestProxy_with_a_full_disk_keeps_the_guests_TPM_working(t *testing.T) {
	r := newRigWith(t, &brokenLedger{})
	q := r.connect(t)
	ak, err := tpmkeys.CreateAK(sender{q})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tpmkeys.Quote(sender{q}, ak, make([]byte, 32), pcr0); err != nil {
		t.Fatal(err)
	}
	if n := r.Counters(); n.Unstored != 1 || n.Quotes != 0 {
		t.Errorf("%+v", n)
	}
}
