package sidecar

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/sidecar/sidecartest"
)

// cheap is TPM2_GetCapability of one property: a command that costs swtpm next to nothing.
var cheap = []byte{0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0, 1}

// BenchmarkTPMCommand compares a TPM command through the sidecar with the same to a swtpm of its
// own, in turns, so that both see the same machine. The target is a median of at most 15 µs more.
func BenchmarkTPMCommand(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	binary := build(b)
	direct, proxied := directQEMU(b), proxiedQEMU(b, binary)
	defer direct.Close()
	defer proxied.Close()
	var times [2][]time.Duration
	var added []time.Duration
	const round = 200
	b.ResetTimer()
	for done := 0; done < b.N; done += round {
		a, p := measure(b, direct, round), measure(b, proxied, round)
		times[0], times[1] = append(times[0], a...), append(times[1], p...)
		added = append(added, median(p)-median(a))
	}
	b.StopTimer()
	d, p := median(times[0]), median(times[1])
	b.ReportMetric(float64(d.Nanoseconds())/1000, "direct-µs")
	b.ReportMetric(float64(p.Nanoseconds())/1000, "proxied-µs")
	b.ReportMetric(float64(median(added).Nanoseconds())/1000, "added-µs")
	b.ReportMetric(float64(p)/float64(d), "ratio")
	b.ReportMetric(0, "ns/op")
}

func measure(b *testing.B, q *sidecartest.QEMU, n int) []time.Duration {
	out := make([]time.Duration, n)
	var buf [4096]byte
	for i := range out {
		start := time.Now()
		if _, err := unix.Write(q.Data, cheap); err != nil {
			b.Fatal(err)
		}
		k, err := unix.Read(q.Data, buf[:])
		for err == unix.EINTR {
			k, err = unix.Read(q.Data, buf[:])
		}
		if out[i] = time.Since(start); err != nil || k < 10 || int(binary.BigEndian.Uint32(buf[2:])) != k {
			b.Fatalf("response of %d bytes: %v", k, err)
		}
	}
	return out
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

// build makes the real program.
func build(b *testing.B) string {
	b.Helper()
	out := filepath.Join(b.TempDir(), "virt-attest-sidecar")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "virt-attest/cmd/virt-attest-sidecar")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, text)
	}
	return out
}

func directQEMU(b *testing.B) *sidecartest.QEMU {
	b.Helper()
	return booted(b, sidecartest.StartSWTPM(b, "").Ctrl)
}

func booted(b *testing.B, path string) *sidecartest.QEMU {
	b.Helper()
	q, err := sidecartest.Connect(path)
	if err == nil {
		err = q.Boot()
	}
	if err != nil {
		b.Fatal(err)
	}
	return q
}

// startSidecar runs the program for one VM and gives its directory.
func startSidecar(b *testing.B, binary string) (*sidecartest.Manager, string) {
	b.Helper()
	dir := sidecartest.ShortDir(b)
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o750); err != nil {
		b.Fatal(err)
	}
	return sidecartest.StartManager(b, []string{binary, "run", "-runtime", dir, "-store", filepath.Join(dir, "store"),
		"-swtpm", sidecartest.StartSWTPM(b, "").Ctrl, "-qemu-user", "root", "-qemu-group", "root", childUUID.String()}, nil), dir
}

func proxiedQEMU(b *testing.B, binary string) *sidecartest.QEMU {
	b.Helper()
	_, dir := startSidecar(b, binary)
	return booted(b, filepath.Join(dir, "tpm.sock"))
}

// BenchmarkIdleMemory tells the idle sidecar's proportional set size after a guest has booted. The
// target is at most 8 MiB.
func BenchmarkIdleMemory(b *testing.B) {
	m, dir := startSidecar(b, build(b))
	q := booted(b, filepath.Join(dir, "tpm.sock"))
	defer q.Close()
	measure(b, q, 200)
	var kib int
	for range b.N {
		kib = pss(b, m.PID())
	}
	b.ReportMetric(float64(kib)/1024, "PSS-MiB")
	b.ReportMetric(0, "ns/op")
}

func pss(b *testing.B, pid int) (kib int) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &kib); err == nil {
			return kib
		}
	}
	b.Fatal("no Pss")
	return 0
}
