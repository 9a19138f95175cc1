package webhook

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"syscall"
)

// ErrAddress says that an endpoint is at an address that events do not go to: this machine, its link, or a cloud's
// metadata service.
var ErrAddress = errors.New("webhook: events do not go to addresses of this machine or its link")

// CheckURL says whether a URL can be an endpoint. Where its name leads is checked at each attempt.
func (c *Config) CheckURL(s string) error {
	if len(s) > MaxURL {
		return fmt.Errorf("webhook: a URL has at most %d bytes", MaxURL)
	}
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("webhook: not a URL")
	}
	switch {
	case u.Scheme != "https" && (u.Scheme != "http" || !c.InsecureHTTP):
		return errors.New("webhook: an endpoint's URL begins with https://")
	case u.Hostname() == "" || u.Opaque != "":
		return errors.New("webhook: the URL names no host")
	case u.User != nil:
		return errors.New("webhook: a URL with a password in it is not kept; the signature shows who sends")
	case u.Fragment != "":
		return errors.New("webhook: an endpoint's URL has no fragment")
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && !c.InsecureLocal && local(a) {
		return ErrAddress
	}
	return nil
}

// control refuses an address when a connection to it is made: a name may lead elsewhere than it did
// when somebody looked (DNS rebinding).
func (c *Config) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return ErrAddress
	}
	if !c.InsecureLocal && local(a.Addr()) {
		return ErrAddress
	}
	return nil
}

// local reports whether an address is this machine's, of its link, or no machine's at all.
func local(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	if v4, ok := embedded(a); ok {
		a = v4
	}
	if a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() {
		return true
	}
	if a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240) { // "this network", reserved, broadcast
		return true
	}
	// Metadata services that are not link-local.
	return a == netip.AddrFrom4([4]byte{100, 100, 100, 200}) || a == netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x0e, 3: 0xc2, 14: 0x02, 15: 0x54})
}

// embedded gives the IPv4 address that a translator would make of an IPv6 address: IPv4-compatible
// (RFC 4291), NAT64 (RFC 6052) and 6to4 (RFC 3056).
func embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() {
		return a, false
	}
	b := a.As16()
	switch {
	case netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0x00, 1: 0x64, 2: 0xff, 3: 0x9b}), 96).Contains(a):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case [12]byte(b[:12]) == [12]byte{} && !a.IsLoopback() && !a.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:])), true
	}
	return a, false
}
