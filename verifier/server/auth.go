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

// principal is who asks, as the kernel or a client certificate says.
type principal struct {
	name     string // for the log: "uid 0", or a certificate's common name
	client   string // common name; "" on the unix socket
	operator bool
	host     bool
}

type principalKey struct{}

// policy says who is what.
type policy struct {
	own       uint32 // the Verifier's own user
	group     *uint32
	operators []string // common names
}

func newPolicy(group string, operators []string) (policy, error) {
	p := policy{own: uint32(os.Geteuid()), operators: operators}
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

// ofPeer judges the process at the other end of a unix socket.
func (p policy) ofPeer(uid uint32, groups []uint32) principal {
	self := uid == 0 || uid == p.own
	member := p.group != nil && slices.Contains(groups, *p.group)
	return principal{name: fmt.Sprintf("uid %d", uid), operator: self || member, host: self}
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
	operator := slices.Contains(p.operators, cn)
	return principal{name: cn, client: cn, operator: operator, host: !operator}
}

// connContext notes who is at the other end of a unix socket when the connection is made.
func (p policy) connContext(ctx context.Context, c net.Conn) context.Context {
	if k, ok := c.(*counted); ok {
		c = k.Conn
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	uid, groups, err := peerCred(u)
	if err != nil {
		return context.WithValue(ctx, principalKey{}, principal{name: "unknown process"})
	}
	return context.WithValue(ctx, principalKey{}, p.ofPeer(uid, groups))
}

// of gives who makes a request.
func (p policy) of(r *http.Request) principal {
	if who, ok := r.Context().Value(principalKey{}).(principal); ok {
		return who
	}
	return p.ofTLS(r.TLS)
}

// may reports whether who has the kind of access.
func (who principal) may(a access) bool {
	switch a {
	case operators:
		return who.operator
	case hosts:
		return who.host
	case anyone:
		return who.operator || who.host
	}
	return false
}

func (who principal) refused(a access) error {
	return api.NewProblem(http.StatusForbidden, "%s is not allowed to do this (it takes %s)", who.name, a)
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
