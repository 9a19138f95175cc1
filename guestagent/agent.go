// Package guestagent is virt-attest's agent in a VM. The host asks by agentproto over the
// virtio-serial port org.virt_attest.0, and the agent answers: who it is, the vTPM's keys,
// quotes, the IMA measurement list and the boot event log.
//
// The agent is a courier. What it ships is signed by the vTPM, or explains what is signed;
// nothing else that it says is believed. So it decides nothing, keeps nothing on disk, runs
// no program and takes no configuration from the host. It treats the host's requests as
// hostile all the same: lengths are bounded before anything is done, one request is served
// at a time. The one request that writes something in the guest brings a secret that the
// Verifier sealed to this VM's vTPM (docs/secrets.md); it becomes a file in memory.
//
// Files and devices it uses, for reading but the two devices and the last one:
//
//	/dev/vportNpM                                    the port, found in /sys/class/virtio-ports
//	/dev/tpmrm0                                      the vTPM behind the kernel's resource manager
//	/sys/kernel/security/ima/binary_runtime_measurements
//	/sys/kernel/security/ima/runtime_measurements_count      once a half second, while a host is there
//	/sys/kernel/security/tpm0/binary_bios_measurements
//	/proc/sys/kernel/random/boot_id
//	/run/virt-attest-guest/secrets                       released secrets, written
package guestagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/guestagent/imalog"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
)

// Files says where the kernel shows what the agent ships.
type Files struct {
	IMA     string // binary measurement list with SHA-1 template digests
	BootLog string // TCG event log
	BootID  string
	Secrets string // directory in memory for released secrets; "": none are taken
	Count   string // how many entries the measurement list has, in decimal
}

// DefaultSecrets is where released secrets are.
const DefaultSecrets = "/run/virt-attest-guest/secrets"

// SystemFiles is where Linux has them.
func SystemFiles() Files {
	return Files{
		IMA:     "/sys/kernel/security/ima/binary_runtime_measurements",
		BootLog: "/sys/kernel/security/tpm0/binary_bios_measurements",
		BootID:  "/proc/sys/kernel/random/boot_id",
		Secrets: DefaultSecrets,
		Count:   "/sys/kernel/security/ima/runtime_measurements_count",
	}
}

// Agent answers requests. It is not safe for concurrent use: the channel serves one at a time.
type Agent struct {
	version string
	files   Files
	tpm     keys
	ima     *imalog.Log
	secrets secrets
	shipped atomic.Uint64 // entries of the list that a host has been given
}

// New prepares an agent; nothing is opened before it is asked for.
func New(version string, tpm transport.TPM, files Files) *Agent {
	return &Agent{version: version, files: files, tpm: keys{tpm: tpm}, ima: imalog.New(files.IMA, attest.SHA1), secrets: secrets{dir: files.Secrets}}
}

// Close unloads the attestation key and closes files. The TPM stays the caller's.
func (a *Agent) Close() error { return errors.Join(a.tpm.unload(), a.ima.Close()) }

// Handle answers one request. It is a channel.Handler.
func (a *Agent) Handle(_ context.Context, op uint8, payload []byte) ([]byte, error) {
	switch op {
	case agentproto.OpHello:
		return reply(a.Hello())
	case agentproto.OpIdentity:
		return reply(a.tpm.identity())
	case agentproto.OpActivate:
		return ask(payload, a.tpm.activate)
	case agentproto.OpQuote:
		return ask(payload, a.quote)
	case agentproto.OpIMA:
		return ask(payload, a.imaChunk)
	case agentproto.OpBootLog:
		return ask(payload, a.bootChunk)
	case agentproto.OpRequest:
		return reply(a.secrets.request())
	case agentproto.OpSecret:
		return ask(payload, func(q agentproto.Secret) (struct{}, error) { return a.secrets.take(&a.tpm, q) })
	}
	return nil, badRequest("unknown request %d", op)
}

// ask decodes the request that f takes and encodes its answer.
func ask[Q, A any](payload []byte, f func(Q) (A, error)) ([]byte, error) {
	var q Q
	if err := channel.Decode(payload, &q); err != nil {
		return nil, badRequest("%v", err)
	}
	return reply(f(q))
}

func reply[A any](a A, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return channel.Encode(a)
}

func badRequest(format string, args ...any) error {
	return &channel.RemoteError{Code: channel.CodeBadRequest, Message: fmt.Sprintf(format, args...)}
}

// unavailable names what this machine does not have, or not now.
func unavailable(what string, err error) error {
	return &channel.RemoteError{Code: channel.CodeUnavailable, Message: fmt.Sprintf("%s: %v", what, err)}
}

// Hello says who the agent is.
func (a *Agent) Hello() (agentproto.Hello, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return agentproto.Hello{}, err
	}
	id, err := a.bootID()
	return agentproto.Hello{Version: a.version, Kernel: unix.ByteSliceToString(u.Release[:]), BootID: id}, err
}

func (a *Agent) bootID() (string, error) {
	b, err := readFile(a.files.BootID, attest.MaxText)
	return strings.TrimSpace(string(b)), err
}

// chunkSize is what one answer holds at most.
func chunkSize(asked uint32) int {
	if asked == 0 || asked > agentproto.MaxChunk {
		return agentproto.MaxChunk
	}
	return int(asked)
}

func (a *Agent) imaChunk(q agentproto.Log) (agentproto.LogChunk, error) {
	id, err := a.bootID()
	if err != nil {
		return agentproto.LogChunk{}, err
	}
	from := q.From
	if q.BootID != id {
		from = 0
	}
	c, err := a.ima.Read(from, chunkSize(q.Max))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return agentproto.LogChunk{}, unavailable("the kernel has no IMA list, or securityfs is not mounted", err)
	case errors.Is(err, imalog.ErrTooLarge):
		return agentproto.LogChunk{}, badRequest("%v", err)
	case err != nil:
		return agentproto.LogChunk{}, err
	}
	a.shipped.Store(max(a.shipped.Load(), c.From+c.Count))
	return agentproto.LogChunk{BootID: id, From: c.From, Count: c.Count, Data: c.Data, More: c.More, TemplateHash: attest.SHA1}, nil
}

func (a *Agent) bootChunk(q agentproto.Log) (agentproto.LogChunk, error) {
	id, err := a.bootID()
	if err != nil {
		return agentproto.LogChunk{}, err
	}
	log, err := readFile(a.files.BootLog, attest.MaxBootLog)
	if errors.Is(err, fs.ErrNotExist) {
		return agentproto.LogChunk{}, unavailable("the firmware left no event log, or securityfs is not mounted", err)
	}
	if err != nil {
		return agentproto.LogChunk{}, err
	}
	from := min(q.From, uint64(len(log)))
	data := log[from:]
	data = data[:min(len(data), chunkSize(q.Max))]
	end := from + uint64(len(data))
	return agentproto.LogChunk{BootID: id, From: from, Count: uint64(len(data)), Data: data, More: end < uint64(len(log))}, nil
}

// readFile reads a file whose size the kernel does not tell beforehand.
func readFile(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(b) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, err
}
