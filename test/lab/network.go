package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// network is a switch in a network namespace of its own, to which hosts are connected. The
// namespaces have no name: they end with the last process that uses them.
type network struct {
	hub *os.File

	mu   sync.Mutex
	legs []*os.File
}

func newNetwork(ctx context.Context) (*network, error) {
	hub, err := newNetNS()
	if err != nil {
		return nil, err
	}
	n := &network{hub: hub}
	if err := ip(ctx, hub, "link add lab0 type bridge", "link set lab0 up"); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func hostIP(i int) string { return fmt.Sprintf("10.99.0.%d", 10+i) }

// plug makes the network namespace of host i, connected to the switch as eth0.
func (n *network) plug(ctx context.Context, i int) (*os.File, error) {
	leg, err := newNetNS()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.legs = append(n.legs, leg)
	n.mu.Unlock()
	return leg, n.connect(ctx, i, leg)
}

func (n *network) connect(ctx context.Context, i int, leg *os.File) error {
	port := fmt.Sprintf("port%d", i)
	if err := ip(ctx, n.hub,
		"link add "+port+" type veth peer name eth0 netns "+nsPath(leg),
		"link set "+port+" master lab0 up"); err != nil {
		return err
	}
	return ip(ctx, leg, "link set lo up", "address add "+hostIP(i)+"/24 dev eth0", "link set eth0 up")
}

func (n *network) close() {
	n.hub.Close()
	for _, l := range n.legs {
		l.Close()
	}
}

// newNetNS makes a network namespace. The thread that does it returns to its own or ends.
func newNetNS() (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			made <- result{err: err}
			return
		}
		defer home.Close()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: fmt.Errorf("lab: network namespace: %w", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		} else {
			err = errors.Join(err, back)
		}
		made <- result{f, err}
	}()
	r := <-made
	return r.f, r.err
}

// nsPath names an open namespace for other programs.
func nsPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// ip runs commands of ip(8) in a network namespace.
func ip(ctx context.Context, ns *os.File, commands ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--net="+nsPath(ns), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: network: ip: %w: %s", err, lastLines(out, 5))
	}
	return nil
}
