package proxy

import (
	"golang.org/x/sys/unix"

	"virt-attest/internal/sidecarproto"
	"virt-attest/sidecar/journal"
)

// Counters are what the proxy counts since QEMU connected.
type Counters struct{ Restarts, Commands, Refused, Quotes, Unstored uint64 }

// Counters tells them. After a crash in the middle of a command it may be counted twice.
func (p *Proxy) Counters() Counters {
	return Counters{
		Restarts: p.st.Restarts.Load(), Commands: p.st.Commands.Load(), Refused: p.st.Refused.Load(),
		Quotes: p.st.Quotes.Load(), Unstored: p.st.Unstored.Load(),
	}
}

// VTPM tells what the vTPM does.
func (p *Proxy) VTPM() sidecarproto.VTPMState {
	switch {
	case !p.alive.Load():
		return sidecarproto.VTPMDead
	case !p.qemu.Load() || p.st.Power.Load() == journal.Off:
		return sidecarproto.VTPMOff
	case p.st.Power.Load() == journal.Powered:
		return sidecarproto.VTPMPowered
	case p.st.Parked.Load() == 1:
		return sidecarproto.VTPMDown
	}
	return sidecarproto.VTPMRunning
}

// Peer is the process that serves the vTPM, 0 while there is none.
func (p *Proxy) Peer() int {
	if !p.alive.Load() {
		return 0
	}
	return int(p.peer.Load())
}

// peerOf is the process that listens where a connection of ours leads to, 0 if that is not known.
func peerOf(fd int) int32 {
	if fd < 0 {
		return 0
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0
	}
	return cred.Pid
}
