package ledger

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Disk full (F9): a write that fails leaves no trace, and the first one after there is
// room again succeeds.
func TestQuote_on_a_full_disk_is_an_error_and_harms_no_record(t *testing.T) {
	if os.Getenv("LEDGER_CHILD") == "full" {
		fullDisk(t)
		return
	}
	child(t, "full")
}

func fullDisk(t *testing.T) {
	dir := os.Getenv("LEDGER_DIR")
	must(t, syscall.Mount("none", dir, "tmpfs", 0, "size=64k"))
	w := open(t, dir, Options{})
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	must(t, f.Close())
	var last Quote
	for n := range uint64(100) {
		last = quoteN(n + 1)
		must(t, w.Expect(quoteN(0).ExtraData, time.Now().Add(time.Minute+time.Duration(n)*time.Second)))
		if err = w.Quote(last); err != nil {
			break
		}
	}
	wantErr(t, err, syscall.ENOSPC)
	must(t, verify(dir, w))
	wantErr(t, w.Quote(last), syscall.ENOSPC)
	for err = nil; err == nil; { // shorter records may still fit
		_, err = w.PowerOn("reset")
	}
	wantErr(t, err, syscall.ENOSPC)
	if n := kinds(records(t, dir))[KindPowerOn]; w.Epoch() != uint64(n) {
		t.Fatal("counted a power-on that was not recorded")
	}
	must(t, os.Remove(ballast))
	must(t, w.Quote(last))
	must(t, verify(dir, w))
	_, err = Find(dir, vm1, last.ExtraData)
	must(t, err)
}

func TestReadOnlyFileSystem_is_an_error_for_the_writer_and_none_for_the_reader(t *testing.T) { // F9
	if os.Getenv("LEDGER_CHILD") == "readonly" {
		readOnly(t)
		return
	}
	child(t, "readonly")
}

func readOnly(t *testing.T) {
	dir := os.Getenv("LEDGER_DIR")
	must(t, syscall.Mount("none", dir, "tmpfs", 0, "size=1m"))
	w := open(t, dir, Options{})
	must(t, w.Quote(quoteN(1)))
	seq, head := w.Head()
	must(t, w.Close())
	must(t, syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	_, err := OpenWriter(dir, vm1, Options{})
	wantErr(t, err, syscall.EROFS)
	must(t, Verify(dir, vm1, seq, head))
}

// child runs the calling test again in a mount namespace of its own.
func child(t *testing.T, what string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "LEDGER_CHILD="+what, "LEDGER_DIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // makes all mounts private, too
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
