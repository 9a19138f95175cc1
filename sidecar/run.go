package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/ledger"
	"virt-attest/internal/sidecarproto"
	"virt-attest/sidecar/agentport"
	"virt-attest/sidecar/fdstore"
	"virt-attest/sidecar/journal"
	"virt-attest/sidecar/proxy"
	"virt-attest/sidecar/service"
)

// Run serves one VM until ctx ends. It takes over what a process before it left with the service manager.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	c, err := c.complete()
	if err != nil {
		return err
	}
	store := fdstore.New(os.Getenv("NOTIFY_SOCKET"))
	in, err := fdstore.Inherit(os.Getenv)
	if err != nil {
		return err
	}
	j, left, fresh, err := openJournal(in, log)
	if err != nil {
		return err
	}
	book := openLedger(c, log)
	defer book.Close()
	p, err := proxy.New(proxy.Config{Journal: j, Left: left, Store: store, Ledger: book, SWTPM: c.SWTPM, Log: log, Point: c.point}, in)
	if err != nil {
		return err
	}
	if fresh { // not before it says what is to be ended
		if err := store.Replace(proxy.NameJournal, j.FD(), storeTime); err != nil {
			return err
		}
	}
	s, err := openSockets(c, in, store)
	if err != nil {
		return err
	}
	in.Close()
	return serve(ctx, c, p, s, book, store, log)
}

// sockets are those that others connect to.
type sockets struct{ tpm, agent, own *net.UnixListener }

func openSockets(c Config, in fdstore.Inherited, store *fdstore.Store) (s sockets, err error) {
	for _, l := range []struct {
		ln   **net.UnixListener
		name string
		gid  int
	}{{&s.tpm, sidecarproto.TPMSocket, c.gid}, {&s.agent, sidecarproto.AgentSocket, c.gid}, {&s.own, sidecarproto.SidecarSocket, -1}} {
		if *l.ln, err = listen(c.RuntimeDir, l.name, l.gid, in, store); err != nil {
			return s, err
		}
	}
	return s, nil
}

// openJournal maps the journal that was left, or makes one, which is to be stored yet (fresh). In the place of one of another
// version a new one knows the same about vTPM and QEMU, and left tells what is to be ended. Of what
// is no journal at all nobody knows what it had under way, so QEMU's connections end.
func openJournal(in fdstore.Inherited, log *slog.Logger) (j *journal.Journal, left journal.Left, fresh bool, err error) {
	if fd := in.Take(proxy.NameJournal); fd >= 0 {
		if j, err = journal.Open(fd); err == nil {
			return j, left, false, nil
		}
		log.Warn("the process before this one was of another version", "error", err)
		j, left, err = journal.Succeed(fd)
		unix.Close(fd)
		if err != nil {
			log.Error("its journal is of no use: the guest's TPM fails until the VM is started again", "error", err)
			left = journal.Left{Guest: journal.Break, Control: journal.Break, SWTPM: true}
		}
	}
	if j == nil {
		if j, err = journal.Create(); err != nil {
			return nil, left, false, err
		}
	}
	if !j.Locked {
		log.Warn("the journal is not locked into memory (LimitMEMLOCK=)")
	}
	return j, left, true, nil
}

// parts are the tasks of a running sidecar; the first that fails ends all.
type parts struct {
	wg     sync.WaitGroup
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (t *parts) start(f func() error) {
	t.wg.Go(func() {
		if err := f(); err != nil {
			t.cancel(err)
		}
	})
}

func serve(ctx context.Context, c Config, p *proxy.Proxy, s sockets, book book, store *fdstore.Store, log *slog.Logger) error {
	t := &parts{}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	port := agentport.New(log, agentport.AllowUIDs(c.uids...))
	svc := &service.Service{UUID: c.UUID, Version: c.Version, VTPM: p, Ledger: book, Agent: port, Log: log}
	t.start(func() error { return accept(t.ctx, s.tpm, c.uids, p, log) })
	t.start(func() error { return port.Serve(t.ctx, s.agent) })
	t.start(func() error { return svc.Serve(t.ctx, s.own) })
	t.start(func() error { return watchdog(t.ctx, store, p.Turning, log) })
	p.Run(t.ctx, func(err error) {
		if err != nil {
			t.cancel(err)
		} else if err := store.Notify("READY=1\nSTATUS=serving the vTPM of " + c.UUID.String()); err != nil {
			t.cancel(err)
		}
	})
	t.wg.Wait()
	if err := context.Cause(t.ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// accept hands QEMU's connections to the proxy.
func accept(ctx context.Context, ln *net.UnixListener, uids []uint32, p *proxy.Proxy, log *slog.Logger) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := ln.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ECONNABORTED):
			time.Sleep(acceptPause)
			continue
		case err != nil:
			return fmt.Errorf("sidecar: %w", err)
		}
		if err := offer(conn, uids, p); err != nil {
			log.Warn("a connection to the TPM's socket is refused", "reason", err)
		}
	}
}

var (
	errUser = errors.New("neither QEMU's user nor root")
	errBusy = errors.New("a QEMU is connected already")
)

func offer(conn *net.UnixConn, uids []uint32, p *proxy.Proxy) error {
	defer conn.Close()
	if !service.Allowed(conn, uids...) {
		return errUser
	}
	f, err := conn.File()
	if err != nil {
		return err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if !p.Offer(fd) {
		unix.Close(fd)
		return errBusy
	}
	return nil
}

// watchdog tells systemd that this process lives, where the unit asks for it.
func watchdog(ctx context.Context, store *fdstore.Store, turning func() bool, log *slog.Logger) error {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return nil
	}
	tick := time.NewTicker(time.Duration(usec) * time.Microsecond / watchdogLooks)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !turning() {
				log.Error("the way between QEMU and swtpm stands still")
				continue
			}
			if err := store.Notify("WATCHDOG=1"); err != nil {
				return err
			}
		}
	}
}

// book is a ledger.Writer, or what stands for one that cannot be opened.
type book interface {
	proxy.Ledger
	service.Ledger
	Close() error
}

// openLedger opens the VM's hypervisor store. A VM runs without one too; it cannot be attested then.
func openLedger(c Config, log *slog.Logger) book {
	w, err := ledger.OpenWriter(c.StoreDir, c.UUID, ledger.Options{Log: log})
	if err != nil {
		log.Error("no hypervisor store: the VM cannot be attested", "error", err)
		return noLedger{err}
	}
	return w
}

// noLedger records nothing and says why.
type noLedger struct{ err error }

func (n noLedger) Epoch() uint64                  { return 0 }
func (n noLedger) PowerOn(string) (uint64, error) { return 0, n.err }
func (n noLedger) Quote(ledger.Quote) error       { return n.err }
func (n noLedger) Taken(attest.Digest) error      { return n.err }
func (n noLedger) Used() error                    { return nil }
func (n noLedger) Restoring(attest.Digest) string { return ledger.CauseArrival }
func (n noLedger) RolledBack() string             { return "" }
func (n noLedger) Expect([]byte, time.Time) error { return n.err }
func (n noLedger) Head() (uint64, [32]byte)       { return 0, [32]byte{} }
func (n noLedger) Close() error                   { return nil }

const (
	storeTime   = 2 * time.Second // patience with the service manager
	acceptPause = 100 * time.Millisecond

	watchdogLooks = 4 // in the watchdog's time: a loop has a quarter of it for a turn
)
