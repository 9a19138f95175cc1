package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Machine is a VM that runs under QEMU without libvirt, with a swtpm of its own.
type Machine struct {
	Console *Console

	dir   string
	procs []*process // swtpm first
}

// Boot starts a VM whose agent's port is connected to the unix socket agentSocket, where
// somebody has to listen; QEMU connects again when that one went. dir takes the TPM's state
// (kept between boots), sockets and logs; its path must be short (sockets: 108 bytes). The VM
// ends with ctx, with Close, and with this process.
func (i Image) Boot(ctx context.Context, dir, agentSocket string, o Options) (_ *Machine, err error) {
	m := &Machine{dir: dir}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if err := m.manufacture(ctx); err != nil {
		return nil, err
	}
	ctrl, serial := filepath.Join(dir, "ctrl"), filepath.Join(dir, "serial")
	for _, stale := range []string{ctrl, serial} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if err := m.start(ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+ctrl, "--terminate"); err != nil {
		return nil, err
	}
	if err := m.appears(ctx, ctrl); err != nil {
		return nil, err
	}
	if err := m.start(ctx, "qemu-system-x86_64", i.arguments(ctrl, serial, agentSocket, o)...); err != nil {
		return nil, err
	}
	if err := m.appears(ctx, serial); err != nil {
		return nil, err
	}
	m.Console, err = Dial(ctx, serial)
	return m, err
}

func (i Image) arguments(ctrl, serial, agentSocket string, o Options) []string {
	args := []string{
		"-accel", "tcg", "-machine", "pc", "-cpu", "qemu64", "-m", strconv.Itoa(o.memory()),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", i.Kernel, "-initrd", i.Initrd, "-append", o.Cmdline(),
		"-drive", "if=virtio,format=raw,readonly=on,file=" + i.Root,
		"-serial", "unix:" + serial + ",server=on,wait=off",
		"-chardev", "socket,id=tpm,path=" + ctrl, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,reconnect=1,path=" + agentSocket,
		"-device", "virtserialport,chardev=agent,name=org.virt_attest.0",
	}
	if o.Net {
		args = append(args, "-nic", "user,model=virtio-net-pci")
	}
	return args
}

// manufacture makes the TPM's state unless dir has it.
func (m *Machine) manufacture(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(m.dir, "tpm2-00.permall")); err == nil {
		return nil
	}
	_, err := run(ctx, m.dir, "swtpm_setup", "--tpm2", "--tpm-state", m.dir, "--createek", "--config", os.DevNull)
	return err
}

func (m *Machine) appears(ctx context.Context, path string) error {
	p := m.procs[len(m.procs)-1]
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("guest: %s: %w: %s", p.cmd.Path, p.err, p.log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

type process struct {
	cmd  *exec.Cmd
	log  bytes.Buffer // complete when done is closed
	done chan struct{}
	err  error
}

func (m *Machine) start(ctx context.Context, name string, args ...string) error {
	p := &process{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	p.cmd.Dir = m.dir
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	m.procs = append(m.procs, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return nil
}

// Exited is closed when QEMU has ended.
func (m *Machine) Exited() <-chan struct{} { return m.procs[len(m.procs)-1].done }

// Close ends the VM as if its power failed.
func (m *Machine) Close() {
	for i := len(m.procs) - 1; i >= 0; i-- {
		_ = m.procs[i].cmd.Process.Kill()
		<-m.procs[i].done
	}
	if m.Console != nil {
		m.Console.Close()
	}
}

// PID is QEMU's process.
func (m *Machine) PID() int { return m.procs[len(m.procs)-1].cmd.Process.Pid }
