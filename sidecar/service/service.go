package service

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
	"virt-attest/sidecar/proxy"
)

// VTPM is the proxy as far as the service needs it.
type VTPM interface {
	Between(ctx context.Context, f func(proxy.Send) error) error
	VTPM() sidecarproto.VTPMState
	Counters() proxy.Counters
	Peer() int
}

// Ledger is the VM's hypervisor store: internal/ledger's Writer.
type Ledger interface {
	Epoch() uint64
	Expect(extra []byte, until time.Time) error
	Head() (seq uint64, head [32]byte)
	RolledBack() string
}

// Agent is the guest agent's channel: sidecar/agentport's Port.
type Agent interface {
	Request(ctx context.Context, op uint8, payload []byte) ([]byte, error)
	Connected() bool
	Events() (ready, grown uint64)
	News() <-chan struct{}
}

// Service answers for one VM.
type Service struct {
	UUID    attest.UUID
	Version string
	VTPM    VTPM
	Ledger  Ledger
	Agent   Agent
	Log     *slog.Logger

	process uint64 // of Moments

	mu    sync.Mutex
	epoch uint64          // that ek belongs to
	ek    sidecarproto.EK // read once an epoch
}

// Serve answers connections on ln until ctx ends (nil) or ln fails, closes ln, and returns when
// every connection is done with.
func (s *Service) Serve(ctx context.Context, ln *net.UnixListener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	s.process = binary.BigEndian.Uint64(id[:])
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	free := make(chan struct{}, maxConns)
	for {
		conn, err := ln.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ECONNABORTED) {
			time.Sleep(maxBackoff)
			continue
		}
		if err != nil {
			return err
		}
		if !Allowed(conn, 0, uint32(os.Geteuid())) {
			s.Log.Warn("a connection from another user is refused")
			conn.Close()
			continue
		}
		select {
		case free <- struct{}{}:
			wg.Go(func() {
				defer func() { <-free }()
				s.serve(ctx, conn)
			})
		default:
			conn.Close()
		}
	}
}

func (s *Service) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := channel.Serve(ctx, conn, sidecarproto.MaxPayload, s.Handle); err != nil && ctx.Err() == nil {
		s.Log.Info("a connection of hostd ended", "reason", err)
	}
}

// Allowed tells whether the peer is a process of one of these users.
func Allowed(conn *net.UnixConn, uids ...uint32) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil || err != nil {
		return false
	}
	for _, uid := range uids {
		if cred.Uid == uid {
			return true
		}
	}
	return false
}
