package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"virt-attest/verifier/api"
)

// policy says who is what.
type policy struct {
	own   uint32 // the Verifier's own user
	group *uint32
	roles map[string]api.Role // of common names
}

func newPolicy(group string, names []string, roles map[string]string) (policy, error) {
	p := policy{own: uint32(os.Geteuid()), roles: make(map[string]api.Role)}
	for _, n := range names {
		p.roles[n] = api.RoleOperator
	}
	for n, r := range roles {
		p.roles[n] = api.Role(r)
	}
	if group == "" {
		return p, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return p, fmt.Errorf("operators.group: %w", err)
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	id := uint32(n)
	p.group = &id
	return p, err
}

// ofPeer judges the process at the other end of a unix socket. It is the Verifier's own machine: whoever
// administers it may do everything.
func (p policy) ofPeer(uid uint32, groups []uint32) principal {
	self := uid == 0 || uid == p.own
	who := principal{name: fmt.Sprintf("uid %d", uid), host: self}
	if self || p.group != nil && slices.Contains(groups, *p.group) {
		who.role = api.RoleAdmin
	}
	return who
}

// ofTLS judges a client by its certificate, which is verified already.
func (p policy) ofTLS(state *tls.ConnectionState) principal {
	if state == nil || len(state.VerifiedChains) == 0 {
		return principal{name: "nobody"}
	}
	cn := state.VerifiedChains[0][0].Subject.CommonName
	if cn == "" {
		return principal{name: "certificate without a common name"}
	}
	role, ok := p.roles[cn]
	return principal{name: "cn:" + cn, client: cn, role: role, host: !ok}
}

// listener is where a connection came in.
type listener int

const (
	onUnix listener = iota
	onTLS           // for hosts, and operators with a certificate
	onWeb           // for people, browsers and programs with a token
)

// end is the other end of a connection.
type end struct {
	on   listener
	peer principal // on the unix socket
}

type endKey struct{}

// endOf gives the other end of a request's connection.
func endOf(r *http.Request) end {
	e, ok := r.Context().Value(endKey{}).(end)
	if !ok {
		return end{on: onTLS} // the one that asks for most
	}
	return e
}

// connContext notes who is at the other end when a connection is made.
func (p policy) connContext(on listener) func(context.Context, net.Conn) context.Context {
	return func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, endKey{}, end{on: on, peer: p.peer(c)})
	}
}

func (p policy) peer(c net.Conn) principal {
	if k, ok := c.(*counted); ok {
		c = k.Conn
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return principal{name: "nobody"}
	}
	uid, groups, err := peerCred(u)
	if err != nil {
		return principal{name: "unknown process"}
	}
	return p.ofPeer(uid, groups)
}

// peerCred asks the kernel for the user and all groups of the process at the other end.
func peerCred(c *net.UnixConn) (uid uint32, groups []uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil {
			groups, credErr = peerGroups(int(fd))
		}
	})
	if err != nil || credErr != nil {
		return 0, nil, fmt.Errorf("peer credentials: %w", errFirst(err, credErr))
	}
	return cred.Uid, append(groups, cred.Gid), nil
}

func errFirst(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// peerGroups is getsockopt SO_PEERGROUPS: the supplementary groups that the process had when
// it connected.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups))
		//nolint:gosec // x/sys/unix has no call for it; size is the length of groups in bytes
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case e == 0:
			return groups[:size/4], nil
		case e == unix.ERANGE && size/4 <= 1<<16:
			groups = make([]uint32, size/4)
		default:
			return nil, e
		}
	}
}
