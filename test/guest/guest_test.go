package guest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirtxml"
)

func TestSay_is_a_program_that_runs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "say")
	if err := os.WriteFile(path, say("hello\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path).CombinedOutput()
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("%q, %v", out, err)
	}
}

func TestArchive_is_one_that_cpio_reads(t *testing.T) {
	var a archive
	a.dirs("d")
	a.add("d/file", modeExec, []byte("odd"))
	cmd := exec.Command("cpio", "-it", "--quiet")
	cmd.Stdin = bytes.NewReader(a.end())
	if _, err := exec.LookPath("cpio"); err != nil {
		cmd = exec.Command("sh", "-c", "strings -n 4 | grep -x -e d/file") // a machine without cpio: the names at least
		cmd.Stdin = bytes.NewReader(a.end())
	}
	if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), "d/file") {
		t.Fatalf("%q, %v", out, err)
	}
}

func TestDomainXML_is_what_libvirt_understands(t *testing.T) {
	img := Image{Kernel: "/a&b/vmlinuz", Initrd: "/i", Root: "/r"}
	text, err := img.DomainXML(Options{
		Name: "vm<1>", UUID: "6e1b1a3c-0f5a-4c64-9b38-2f5d5a8b7c11", Attested: true, Net: true,
		Relay: "192.0.2.1:7", Console: "/run/c.sock",
	})
	if err != nil {
		t.Fatal(err)
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	if d.Name != "vm<1>" || d.OS.Kernel != "/a&b/vmlinuz" || !strings.Contains(d.OS.Cmdline, "ima_policy=tcb") ||
		!strings.Contains(d.OS.Cmdline, "va.net=1 va.relay=192.0.2.1:7") {
		t.Errorf("%+v", d.OS)
	}
	dev := d.Devices
	if s := dev.TPMs[0].Backend.External.Source; s == nil || s.UNIX == nil || s.UNIX.Path != "/run/virt-attest/"+d.UUID+"/tpm.sock" {
		t.Errorf("TPM %+v", dev.TPMs[0])
	}
	if c := dev.Channels[0]; c.Target.VirtIO.Name != "org.virt_attest.0" || c.Source.UNIX.Reconnect == nil {
		t.Errorf("channel %+v", c)
	}
	if dev.Disks[0].ReadOnly == nil || dev.Serials[0].Source.UNIX.Path != "/run/c.sock" || len(dev.Interfaces) != 1 {
		t.Errorf("devices %+v", dev)
	}
	if text, err = img.DomainXML(Options{Name: "x"}); err != nil || strings.Contains(text, "tpm") {
		t.Errorf("a plain VM has a TPM: %v", err)
	}
	if _, err = img.DomainXML(Options{Name: "a\nb"}); err == nil {
		t.Error("a name with a line feed is accepted")
	}
}

// shell plays the guest's shell on a serial line: real commands, CR LF at line ends.
func shell(t *testing.T) *Console {
	host, serial := net.Pipe()
	cmd := exec.Command("sh")
	cmd.Stdin, cmd.Stdout = serial, crlf{serial}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := NewConsole(host)
	t.Cleanup(func() { c.Close(); serial.Close(); _ = cmd.Wait() })
	return c
}

type crlf struct{ net.Conn }

func (w crlf) Write(b []byte) (int, error) {
	_, err := w.Conn.Write(bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")))
	return len(b), err
}

func TestRun_gives_a_commands_output_and_status(t *testing.T) {
	c := shell(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"echo one; echo two":           "one\ntwo\n",
		"printf unfinished":            "unfinished",
		`echo "it's" 'a "quote"'`:      "it's a \"quote\"\n",
		"echo va-end 1 0":              "va-end 1 0\n",
		"sleep 0.3 & echo background;": "background\n",
		"echo wrong >&2":               "wrong\n",
		":":                            "",
	} {
		if got, err := c.Run(ctx, command); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", command, got, err, want)
		}
	}
	var exit *ExitError
	if out, err := c.Run(ctx, "echo text; exit 7"); !errors.As(err, &exit) || exit.Status != 7 || out != "text\n" {
		t.Errorf("%q, %v", out, err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Run(short, "sleep 0.5"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if out, err := c.Run(ctx, "echo next"); err != nil || out != "next\n" {
		t.Errorf("after a command that took too long: %q, %v", out, err)
	}
}
