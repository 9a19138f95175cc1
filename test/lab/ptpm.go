package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// chip is a host's physical TPM: a swtpm and, before it, the resource manager that the
// container may speak to.
type chip struct {
	cmd    *exec.Cmd
	exited chan struct{}
	conn   net.Conn // to swtpm
	mux    *mux
}

// startTPM manufactures the host's TPM and starts it.
func (h *Host) startTPM(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	for _, d := range []string{"ptpm", "logs"} {
		if err := os.MkdirAll(h.file(d), 0o755); err != nil {
			return err
		}
	}
	if err := h.manufacture(ctx, h.file("tpm")); err != nil {
		return err
	}
	return h.powerTPM(ctx)
}

// powerTPM starts the TPM with the state that it has.
func (h *Host) powerTPM(ctx context.Context) error {
	t, err := h.lab.startSwtpm(ctx, h.file("tpm"))
	if err != nil {
		return err
	}
	h.tpm = t
	t.mux, err = listenMux(h.file("ptpm", "ptpm.sock"), t.conn)
	return err
}

// manufacture makes a TPM as its maker does: seeds, EK, certificates, PCR banks.
func (h *Host) manufacture(ctx context.Context, dir string) error {
	state := filepath.Join(dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	if err := h.lab.pki.writeMaker(dir); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "swtpm_setup", "--tpm2", "--tpm-state", state, "--config", filepath.Join(dir, "setup.conf"),
		"--createek", "--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--overwrite",
		"--pcr-banks", "sha1,sha256", "--vmid", h.lab.name+"-"+h.name, "--runas", "root")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: %s: swtpm_setup: %w\n%s", h.name, err, lastLines(out, 10))
	}
	return nil
}

func (l *Lab) startSwtpm(ctx context.Context, dir string) (*chip, error) {
	server := filepath.Join(dir, "server.sock")
	t := &chip{exited: make(chan struct{})}
	t.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+filepath.Join(dir, "state")+",mode=0600",
		"--server", "type=unixio,path="+server+",mode=0600", "--ctrl", "type=unixio,path="+filepath.Join(dir, "ctrl.sock")+",mode=0600",
		"--flags", "not-need-init,startup-clear", "--log", "file="+filepath.Join(dir, "swtpm.log")+",level=1")
	var out strings.Builder
	t.cmd.Stdout, t.cmd.Stderr = &out, &out
	if err := l.spawn.start(t.cmd); err != nil {
		return nil, err
	}
	go func() {
		defer close(t.exited)
		_ = t.cmd.Wait()
	}()
	for {
		conn, err := net.Dial("unix", server)
		if err == nil {
			t.conn = conn
			return t, nil
		}
		select {
		case <-t.exited:
			return nil, fmt.Errorf("lab: swtpm ended at once: %s", out.String())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err, t.stop())
		case <-time.After(pollEvery):
		}
	}
}

func (t *chip) stop() error {
	var err error
	if t.mux != nil {
		err = t.mux.close()
	}
	_ = t.cmd.Process.Kill()
	<-t.exited
	return err
}
