package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"virt-attest/verifier/api"
)

// wallet knows who holds the secrets of tokens and sessions. It asks the Service, and remembers the answer for a
// moment; those who guess are slowed down by their address.
type wallet struct {
	svc api.Service
	now func() time.Time

	mu      sync.Mutex
	known   map[[32]byte]holder
	strikes map[string]strike
}

type holder struct {
	who   api.Caller
	until time.Time
}

// strike counts failures of an address since a time.
type strike struct {
	n     int
	since time.Time
}

func newWallet(svc api.Service) *wallet {
	return &wallet{svc: svc, now: time.Now, known: make(map[[32]byte]holder), strikes: make(map[string]strike)}
}

// check gives who holds secret. from is who tries, as far as the transport tells.
func (w *wallet) check(ctx context.Context, secret, from string) (api.Caller, error) {
	key := sha256.Sum256([]byte(secret))
	w.mu.Lock()
	h, ok := w.known[key]
	w.mu.Unlock()
	if ok && w.now().Before(h.until) {
		return h.who, nil
	}
	if err := w.admit(from); err != nil {
		return api.Caller{}, err
	}
	if !plausible(secret) {
		w.failed(from)
		return api.Caller{}, unauthorized()
	}
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	who, err := w.svc.Authenticate(ctx, secret)
	if err != nil {
		if p := problemOf(err); p.Status >= http.StatusInternalServerError {
			return api.Caller{}, err
		}
		w.failed(from)
		return api.Caller{}, unauthorized()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.known) >= maxKnown {
		clear(w.known)
	}
	w.known[key] = holder{who, w.now().Add(knownFor)}
	return who, nil
}

// forget makes the wallet ask again for every secret: one of them may count no more.
func (w *wallet) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.known)
}

// admit refuses who has failed too often.
func (w *wallet) admit(from string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.strikes[from]
	if s.n >= maxStrikes && w.now().Sub(s.since) < strikeTime {
		return api.NewProblem(http.StatusTooManyRequests, "too many wrong credentials came from there; wait a minute")
	}
	return nil
}

// failed notes a wrong credential.
func (w *wallet) failed(from string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if len(w.strikes) >= maxAddresses {
		for k, s := range w.strikes {
			if now.Sub(s.since) >= strikeTime {
				delete(w.strikes, k)
			}
		}
		if len(w.strikes) >= maxAddresses {
			clear(w.strikes) // more addresses than we can count: slow nobody down rather than everybody
		}
	}
	s := w.strikes[from]
	if now.Sub(s.since) >= strikeTime {
		s = strike{since: now}
	}
	s.n++
	w.strikes[from] = s
}

// plausible reports whether a secret could be one: nothing else reaches the database.
func plausible(secret string) bool {
	return len(secret) >= 16 && len(secret) <= maxSecret && strings.Trim(secret, secretLetters) == ""
}

const secretLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.~+/="

func unauthorized() error {
	return api.NewProblem(http.StatusUnauthorized, "the credential is not known, or does not count any more")
}

// source names where a request comes from, for counting: a process's user, an IPv4 address, an IPv6 network of 64 bits.
func source(r *http.Request) string {
	if e := endOf(r); e.on == onUnix {
		return e.peer.name
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Unmap().Is4() {
		return host
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return host
	}
	return p.String()
}

// bearer gives the token that a request shows. More than one Authorization header, or another scheme, is an error.
func bearer(r *http.Request) (string, error) {
	list := r.Header.Values("Authorization")
	if len(list) == 0 {
		return "", nil
	}
	kind, token, ok := strings.Cut(list[0], " ")
	if len(list) > 1 || !ok || !strings.EqualFold(kind, "Bearer") || token == "" {
		return "", api.NewProblem(http.StatusUnauthorized, "the Authorization header has no bearer token")
	}
	return token, nil
}

// who settles who makes a request.
func (s *Server) who(r *http.Request) (principal, error) {
	e := endOf(r)
	token, err := bearer(r)
	switch {
	case err != nil:
		return principal{name: "nobody"}, err
	case token != "" && e.on == onTLS:
		return principal{name: "nobody"}, api.NewProblem(http.StatusForbidden, "tokens are for the address of people and programs (listen.web) and for the unix socket")
	case token != "":
		return s.holder(r, token)
	case e.on == onUnix:
		return e.peer, nil
	case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		return s.policy.ofTLS(r.TLS), nil
	case e.on == onTLS:
		return s.policy.ofTLS(r.TLS), nil
	}
	if session, ok := sessionOf(r); ok {
		who, err := s.holder(r, session)
		who.browser = true
		return who, err
	}
	return principal{name: "nobody"}, api.NewProblem(http.StatusUnauthorized, "this takes a credential")
}

// holder gives the principal of a secret.
func (s *Server) holder(r *http.Request, secret string) (principal, error) {
	c, err := s.wallet.check(r.Context(), secret, source(r))
	if err != nil {
		return principal{name: "nobody"}, err
	}
	return principal{name: c.Name, role: c.Role, tenant: c.Tenant, secret: secret}, nil
}

// again reports whether who still counts: a stream is open for long.
func (s *Server) again(ctx context.Context, who principal, a access) bool {
	if who.secret == "" {
		return true
	}
	c, err := s.wallet.check(ctx, who.secret, "stream of "+who.name)
	if err != nil {
		var p *api.Problem
		return !errors.As(err, &p) || p.Status >= http.StatusInternalServerError // a database that is away ends no session
	}
	return c.Tenant == who.tenant && principal{role: c.Role}.may(a)
}

// cookieName is the session cookie's. With TLS a browser takes it from this very host only.
func cookieName(tls bool) string {
	if tls {
		return "__Host-virt-attest"
	}
	return "virt-attest"
}

func sessionOf(r *http.Request) (string, bool) {
	k, err := r.Cookie(cookieName(r.TLS != nil))
	if err != nil || k.Value == "" {
		return "", false
	}
	return k.Value, true
}

// cookie makes the session cookie; age 0 takes it away.
func cookie(r *http.Request, session string, age time.Duration) *http.Cookie {
	//nolint:gosec // without TLS it is served on this machine only, and a browser would not send a Secure cookie there
	k := &http.Cookie{Name: cookieName(r.TLS != nil), Value: session, Path: "/", MaxAge: int(age.Seconds()), HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode}
	if age == 0 {
		k.MaxAge = -1
	}
	return k
}
