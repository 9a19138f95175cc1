package machine_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmtest"
	"virt-attest/verifier/host/machine"
)

// host is a machine whose kernel measures a file whenever its TPM is about to quote.
type host struct {
	t    *testing.T
	tpm  string
	list string
	ima  *measuretest.IMA
}

// measure extends the TPM and the list as the kernel does.
func (h *host) measure(path string) {
	before := len(h.ima.Segment("").Data)
	h.ima.File(path, path)
	data := h.ima.Segment("").Data
	if err := os.WriteFile(h.list, data, 0o600); err != nil {
		h.t.Error(err)
	}
	digest, err := templateDigest(data[before:])
	if err != nil {
		h.t.Error(err)
	}
	dev := ptpm.Socket(h.tpm)
	defer func() { _ = dev.Close() }()
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(measurement.IMAPCR), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest}}},
	}.Execute(dev)
	if err != nil {
		h.t.Error(err)
	}
}

// templateDigest is what SHA-256's PCR 10 is extended with: the difference that one entry makes.
func templateDigest(entry []byte) ([]byte, error) {
	size, err := measurement.NextEntry(entry, attest.SHA1.Size())
	if err != nil {
		return nil, err
	}
	name := binary.LittleEndian.Uint32(entry[24:])
	return hash(entry[28+name+4 : size]), nil
}

func hash(b []byte) []byte {
	h, _ := attest.SHA256.Hash()
	w := h.New()
	w.Write(b)
	return w.Sum(nil)
}

// lazy connects when a command comes, since swtpm serves one client at a time.
type lazy struct {
	h *host
	net.Conn
}

func (l *lazy) Write(command []byte) (int, error) {
	const quote = 0x158
	if len(command) >= 10 && binary.BigEndian.Uint32(command[6:]) == quote {
		l.h.measure(fmt.Sprintf("/usr/bin/upgraded-%d", l.h.ima.Count))
	}
	c, err := net.Dial("unix", l.h.tpm)
	if err != nil {
		return 0, err
	}
	l.Conn = c
	return c.Write(command)
}

func (l *lazy) Close() error {
	if l.Conn == nil {
		return nil
	}
	return l.Conn.Close()
}

func TestQuote_holds_on_a_host_that_measures_while_its_TPM_quotes(t *testing.T) {
	dir := t.TempDir()
	h := &host{t: t, tpm: tpmtest.Socket(t), list: filepath.Join(dir, "ima"), ima: &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}}
	h.measure("/sbin/init")
	dev := ptpm.New("pTPM", func(context.Context) (io.ReadWriteCloser, error) { return &lazy{h: h}, nil }, 10*time.Second).Shared()
	selection := []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0, 1, 2, 3, 4, 5, 6, 7, 10}}}
	tpm := machine.NewTPM(dev, selection, slog.New(slog.DiscardHandler))
	defer func() { _ = tpm.Close() }()
	list := machine.NewIMALog(h.list, filepath.Join(dir, "boot_id"))
	_, pcrs, err := tpm.Quote(t.Context(), [32]byte{1}, list)
	if err != nil {
		t.Fatal(err)
	}
	seg, err := list.From(attest.Resume{}, attest.MaxIMAData)
	if err != nil {
		t.Fatal(err)
	}
	if proof, err := measurement.Replay(seg, measurement.State{}, pcrs, measurement.Options{}); err != nil || proof.State.Count != 2 {
		t.Errorf("the list does not explain the quote: %v", err)
	}
	if _, _, err := tpm.Quote(t.Context(), [32]byte{2}, nil); err == nil {
		t.Error("without the list such a quote cannot be explained, and is given all the same")
	}
}
