package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/ptpm"
)

// LogDir is where a host finds its measurement logs: ima (the kernel's binary list, SHA-1
// template digests), bootlog (TCG, crypto-agile) and boot_id. Read-only, as securityfs is.
const LogDir = "/var/lib/virt-attest-lab"

const (
	imaPCR = 10
	// Of an ima-ng entry, before its template data: PCR, SHA-1 digest, name, length.
	imaHead = 4 + 20 + 4 + len("ima-ng") + 4
)

// recorder measures into a host's TPM and logs at the same time, as firmware and kernel do:
// first the log, then the TPM, so that a log can only run ahead of a quote.
type recorder struct {
	dir  string // of the logs, outside the container
	tpm  transport.TPMCloser
	lock *os.File
	pcrs *measuretest.PCRs // as the TPM's should be; nil once the boot is over
}

func (h *Host) recorder(ctx context.Context) (*recorder, error) {
	lock, err := os.OpenFile(h.file("measure.lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, lock, unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &recorder{dir: h.file("logs"), tpm: ptpm.Socket(h.file("ptpm", "ptpm.sock")), lock: lock}, nil
}

func (r *recorder) close() error { return errors.Join(r.tpm.Close(), r.lock.Close()) }

// extend folds data's digests into a PCR of both banks.
func (r *recorder) extend(pcr uint8, data []byte) error {
	var digests []tpm2.TPMTHA
	for _, a := range []attest.Alg{attest.SHA1, attest.SHA256} {
		hash, _ := a.Hash()
		w := hash.New()
		w.Write(data)
		digests = append(digests, tpm2.TPMTHA{HashAlg: tpm2.TPMAlgID(a), Digest: w.Sum(nil)})
	}
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: digests},
	}.Execute(r.tpm)
	if err != nil {
		return fmt.Errorf("lab: extend PCR %d: %w", pcr, err)
	}
	return nil
}

// Boot event types of the TCG PC Client Platform Firmware Profile, section 10.4.1.
const (
	evSeparator = measuretest.EvSeparator
	evCRTM      = measuretest.EvCRTM
	evIPL       = measuretest.EvIPL
	evPostCode  = 0x1
	evTableOf   = 0x9 // EV_CPU_MICROCODE
	evConfig    = 0xa // EV_PLATFORM_CONFIG_FLAGS
)

// bootEvent is one measurement of what stands for the host's firmware and boot loader.
type bootEvent struct {
	pcr      uint8
	typ      uint32
	text     string
	measured []byte // nil: the text itself
}

// bootEvents are the same for all hosts of a machine: what there is in place of firmware,
// boot loader and kernel is the machine's.
func bootEvents() []bootEvent {
	events := []bootEvent{
		{pcr: 0, typ: evCRTM, text: "virt-attest-lab 1"},
		{pcr: 0, typ: evPostCode, text: "virt-attest-lab firmware"},
		{pcr: 1, typ: evConfig, text: "systemd-nspawn --boot"},
		{pcr: 1, typ: evTableOf, text: "cpu model", measured: cpuModel()},
	}
	for i := range uint8(8) {
		events = append(events, bootEvent{pcr: i, typ: evSeparator, text: "\x00\x00\x00\x00"})
	}
	return append(events,
		bootEvent{pcr: 4, typ: evIPL, text: "virt-attest-lab loader"},
		bootEvent{pcr: 8, typ: evIPL, text: "kernel command line", measured: machineFile("/proc/cmdline")},
		bootEvent{pcr: 9, typ: evIPL, text: "kernel", measured: machineKernel()},
	)
}

func machineFile(name string) []byte {
	b, err := os.ReadFile(name)
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

// machineKernel gives the running kernel's image, or what it says of itself where there is none.
func machineKernel() []byte {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		if b, err := os.ReadFile("/boot/vmlinuz-" + unix.ByteSliceToString(u.Release[:])); err == nil {
			return b
		}
	}
	return machineFile("/proc/version")
}

func cpuModel() []byte {
	for line := range bytes.Lines(machineFile("/proc/cpuinfo")) {
		if bytes.HasPrefix(line, []byte("model name")) {
			return line
		}
	}
	return []byte("unknown")
}

// boot writes the boot log and begins the IMA list.
func (r *recorder) boot() error {
	r.pcrs = measuretest.NewPCRs(attest.SHA1, attest.SHA256)
	log := &measuretest.BootLog{PCRs: r.pcrs}
	log.Begin()
	for _, e := range bootEvents() {
		if e.measured == nil {
			e.measured = []byte(e.text)
		}
		log.EventOf(e.pcr, e.typ, []byte(e.text), e.measured)
		if err := r.extend(e.pcr, e.measured); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "bootlog"), log.Data, 0o444); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.dir, "boot_id"), []byte(randomUUID()+"\n"), 0o444); err != nil {
		return err
	}
	list := &measuretest.IMA{PCRs: r.pcrs}
	list.Boot()
	return r.append(list.Data)
}

// file appends the entry of a file to the IMA list and extends PCR 10.
func (r *recorder) file(f measured) error {
	list := &measuretest.IMA{PCRs: measuretest.NewPCRs()}
	list.Digest(f.path, f.digest[:])
	return r.append(list.Data)
}

// append writes one entry in one piece, then extends.
func (r *recorder) append(entry []byte) error {
	f, err := os.OpenFile(filepath.Join(r.dir, "ima"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o444)
	if err != nil {
		return err
	}
	if _, err := f.Write(entry); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Close(), r.extend(imaPCR, entry[imaHead:]))
}

// measured is a file with its content's digest.
type measured struct {
	path   string
	digest [sha256.Size]byte
}

// known reads which files the IMA list holds already, each by its newest digest.
func (r *recorder) known() (map[string][sha256.Size]byte, error) {
	f, err := os.Open(filepath.Join(r.dir, "ima"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readBounded(f, maxLogSize)
	if err != nil {
		return nil, err
	}
	files := map[string][sha256.Size]byte{}
	for len(b) > 0 {
		if len(b) < imaHead || uint64(len(b)) < uint64(imaHead)+uint64(binary.LittleEndian.Uint32(b[imaHead-4:])) {
			return nil, errors.New("lab: the IMA list is truncated")
		}
		size := int(binary.LittleEndian.Uint32(b[imaHead-4:]))
		path, digest, err := parseIMANG(b[imaHead : imaHead+size])
		if err != nil {
			return nil, err
		}
		files[path] = digest
		b = b[imaHead+size:]
	}
	return files, nil
}

// parseIMANG reads the template data that recorder.file wrote.
func parseIMANG(data []byte) (path string, digest [sha256.Size]byte, err error) {
	const prefix = len("sha256:\x00")
	nameAt := 4 + prefix + sha256.Size + 4
	if len(data) <= nameAt {
		return "", digest, errors.New("lab: not an entry of this list")
	}
	copy(digest[:], data[4+prefix:])
	return strings.TrimSuffix(string(data[nameAt:]), "\x00"), digest, nil
}

// measureBoot is the host's boot as its TPM and logs see it.
func (h *Host) measureBoot(ctx context.Context, seen *digestCache) (int, error) {
	r, err := h.recorder(ctx)
	if err != nil {
		return 0, err
	}
	defer r.close()
	if err := r.boot(); err != nil {
		return 0, err
	}
	return h.measureNew(ctx, r, seen)
}

// Measure measures again what a host runs: libvirt, QEMU, swtpm, systemd and its units'
// programs, virt-attest, the hooks, and the libraries of them all. What has not changed since it was
// measured last is not measured twice. It gives the number of new entries.
func (h *Host) Measure(ctx context.Context) (int, error) {
	r, err := h.recorder(ctx)
	if err != nil {
		return 0, err
	}
	defer r.close()
	return h.measureNew(ctx, r, &digestCache{})
}

func (h *Host) measureNew(ctx context.Context, r *recorder, seen *digestCache) (int, error) {
	root, err := h.root()
	if err != nil {
		return 0, err
	}
	defer root.close()
	paths, err := root.programs()
	if err != nil {
		return 0, err
	}
	return r.add(ctx, root, paths, seen)
}

// add measures those of the files whose content is not in the list already.
func (r *recorder) add(ctx context.Context, root *rootFS, paths []string, seen *digestCache) (int, error) {
	known, err := r.known()
	if err != nil {
		return 0, err
	}
	added := 0
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return added, err
		}
		m, err := root.digest(p, seen)
		if err != nil {
			return added, err
		}
		if d, ok := known[m.path]; ok && d == m.digest {
			continue
		}
		if err := r.file(m); err != nil {
			return added, err
		}
		known[m.path] = m.digest
		added++
	}
	return added, nil
}

// RunMeasured stands for a program that starts on a host whose kernel measures: the
// executable, and the interpreter if it is a script, are measured into PCR 10 and the IMA
// list, then it runs.
func (h *Host) RunMeasured(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	if err := h.MeasureCommand(ctx, args...); err != nil {
		return "", err.Error(), -1
	}
	return h.Run(ctx, args...)
}

// MeasureCommand is what RunMeasured does before it runs the command.
func (h *Host) MeasureCommand(ctx context.Context, args ...string) error {
	if len(args) == 0 {
		return errors.New("lab: no command")
	}
	program := args[0]
	if !strings.Contains(program, "/") {
		out, err := h.must(ctx, "sh", "-c", `command -v -- "$1"`, "sh", program)
		if err != nil {
			return err
		}
		program = strings.TrimSpace(out)
	}
	r, err := h.recorder(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	root, err := h.root()
	if err != nil {
		return err
	}
	defer root.close()
	paths := []string{program}
	if i := root.interpreter(program); i != "" {
		paths = append(paths, i)
	}
	_, err = r.add(ctx, root, paths, &digestCache{})
	return err
}
