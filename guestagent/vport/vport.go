// Package vport is a guest's end of a virtio-serial port: it finds the port by its name, opens
// it and waits for the host, without polling once the port is there.
//
// The character device of such a port behaves unlike other streams. While nobody holds the
// host's end it is readable and yields nothing (end of file), and it stays open: the host may
// come back at any time, in the middle of anything. Poll says POLLHUP meanwhile. Only one
// process can have it open (EBUSY for others).
package vport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Finder says where to look for ports.
type Finder struct {
	Class string // /sys/class/virtio-ports: a directory per port, its name in the file "name"
	Links string // /dev/virtio-ports: udev's links by name
	Dev   string // /dev
}

// System is where Linux shows its ports.
func System() Finder {
	return Finder{Class: "/sys/class/virtio-ports", Links: "/dev/virtio-ports", Dev: "/dev"}
}

// ErrAbsent says that there is no port of that name (yet): no such channel in the domain, or the
// driver (virtio_console) is not loaded.
var ErrAbsent = errors.New("vport: no such virtio-serial port")

// Find gives the device path of the port called name. sysfs has it without udev.
func (f Finder) Find(name string) (string, error) {
	ports, err := os.ReadDir(f.Class)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, p := range ports {
		b, err := os.ReadFile(filepath.Join(f.Class, p.Name(), "name"))
		if err == nil && strings.TrimSuffix(string(b), "\n") == name {
			return filepath.Join(f.Dev, p.Name()), nil
		}
	}
	link := filepath.Join(f.Links, name)
	if _, err := os.Stat(link); err == nil {
		return link, nil
	}
	return "", ErrAbsent
}

// Wait opens the port called name, at once or as soon as it is there and free. There is no event
// for that without udev or systemd, so it looks again, at most once a second; a service
// that a udev rule starts finds it at the first look.
func (f Finder) Wait(ctx context.Context, name string, log *slog.Logger) (*Port, error) {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		path, err := f.Find(name)
		if err == nil {
			var p *Port
			if p, err = Open(path); err == nil {
				return p, nil
			}
		}
		if pause == firstPause {
			log.Info("waiting for the port", "name", name, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// Port is an open port. Read returns io.EOF while no host is connected.
type Port struct {
	f   *os.File
	raw syscall.RawConn
}

// Open opens the character device at path.
func Open(path string) (*Port, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	p, err := newPort(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

func newPort(f *os.File) (*Port, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode()&(fs.ModeCharDevice|fs.ModeSocket) == 0 {
		return nil, fmt.Errorf("vport: %s is not a character device", f.Name())
	}
	if err := f.SetDeadline(time.Time{}); err != nil { // only files that can be polled take deadlines
		return nil, fmt.Errorf("vport: %s: %w", f.Name(), err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Port{f, raw}, nil
}

// WaitHost returns when a host holds the other end. The edge that a host's coming makes is one
// of writability.
func (p *Port) WaitHost() error {
	var failed error
	err := p.raw.Write(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		for {
			_, failed = unix.Poll(fds, 0)
			if !errors.Is(failed, unix.EINTR) {
				break
			}
		}
		return failed != nil || fds[0].Revents&unix.POLLHUP == 0
	})
	return errors.Join(closing(err), failed)
}

// Read reads what is there, or waits for the host to send something or to go (io.EOF).
func (p *Port) Read(b []byte) (int, error) {
	var n int
	var failed error
	err := p.raw.Read(func(fd uintptr) bool {
		n, failed = retry(func() (int, error) { return unix.Read(int(fd), b) })
		return !errors.Is(failed, unix.EAGAIN)
	})
	switch {
	case err != nil:
		return 0, closing(err)
	case failed != nil:
		return 0, os.NewSyscallError("read", failed)
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// closing gives the internal error of a file that is being closed its public name.
func closing(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
		return err
	}
	return fmt.Errorf("vport: %w: %w", os.ErrClosed, err)
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// Write writes all of b, or as much as the host takes until the deadline.
func (p *Port) Write(b []byte) (int, error) { return p.f.Write(b) }

// SetReadDeadline and SetWriteDeadline are those of os.File.
func (p *Port) SetReadDeadline(t time.Time) error { return p.f.SetReadDeadline(t) }

// SetWriteDeadline see SetReadDeadline.
func (p *Port) SetWriteDeadline(t time.Time) error { return p.f.SetWriteDeadline(t) }

// Close ends every call that waits.
func (p *Port) Close() error { return p.f.Close() }
