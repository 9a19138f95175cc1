package server

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"virt-attest/verifier/api"
)

// pagePattern is what requests for the web page are counted as.
const pagePattern = "web page"

// names reports whether a Host header is one of ours on listen.web: this machine by its very name or address,
// or a configured name.
func (s *Server) names(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if api.Loopback(host) {
		return true
	}
	for _, n := range s.conf.Listen.Names {
		if strings.EqualFold(n, host) {
			return true
		}
	}
	return false
}

// isPage reports whether a request is for the web page rather than for the table of routes.
func (s *Server) isPage(r *http.Request) bool {
	p := r.URL.Path
	if s.opts.Web == nil || endOf(r).on != onWeb {
		return false
	}
	for _, own := range []string{"/healthz", "/readyz", "/metrics", "/api", "/.well-known"} {
		if p == own || strings.HasPrefix(p, own+"/") {
			return false
		}
	}
	return true
}

// page serves the web page. Logging in and out is done here, the rest by the page itself, which finds who asks in the
// request's context (api.CallerOf). What changes something must come from our own pages, whoever asks.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	who := principal{name: "nobody"}
	defer s.rescue(w, r, who, "page")
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(bulkWrite))
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		s.problem(w, r, who, api.NewProblem(http.StatusForbidden, "this request comes from another site"))
		return
	}
	if r.Method == http.MethodPost && (r.URL.Path == "/login" || r.URL.Path == "/logout") {
		r.Body = http.MaxBytesReader(w, r.Body, maxLogin)
		if r.URL.Path == "/login" {
			s.login(w, r)
		} else {
			s.logout(w, r)
		}
		return
	}
	leave, err := s.visit(w, &r)
	if err != nil {
		s.problem(w, r, who, err)
		return
	}
	defer leave()
	s.opts.Web.ServeHTTP(w, r)
}

// visit notes in a request who makes it, if somebody has logged in, and bounds what it may bring.
func (s *Server) visit(w http.ResponseWriter, r **http.Request) (leave func(), err error) {
	leave = func() {}
	who, err := s.who(*r)
	var p *api.Problem
	if err != nil && (!errors.As(err, &p) || p.Status != http.StatusUnauthorized) {
		return leave, err
	}
	limit := int64(maxLogin)
	if err == nil && who.role != "" {
		limit = api.MaxRequest
		*r = (*r).WithContext(api.WithCaller((*r).Context(), who.caller()))
	}
	if n := (*r).ContentLength; limit == api.MaxRequest && (n < 0 || n > limit) && (*r).Method == http.MethodPost {
		if leave, err = s.bulk.enter((*r).Context(), who.name); err != nil {
			return func() {}, err
		}
		limit = maxUpload
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bulkTimeout))
	}
	(*r).Body = http.MaxBytesReader(w, (*r).Body, limit)
	return leave, nil
}

// login takes the one-time token of a form and gives the browser a session. A browser that fails is sent back to
// the form, with the reason: "refused", "busy" or "failed".
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	from := source(r)
	next := local(r.PostFormValue("next"))
	back := func(why string) { http.Redirect(w, r, "/login?error="+why, http.StatusSeeOther) }
	if err := s.wallet.admit(from); err != nil {
		back("busy")
		return
	}
	token := strings.TrimSpace(r.PostFormValue("token"))
	if !plausible(token) {
		s.wallet.failed(from)
		back("refused")
		return
	}
	session, who, err := s.svc.Login(r.Context(), token)
	if err != nil {
		s.log.Warn("login refused", "from", from, "err", err)
		if problemOf(err).Status >= http.StatusInternalServerError {
			back("failed")
			return
		}
		s.wallet.failed(from)
		back("refused")
		return
	}
	s.log.Info("logged in", "who", who.Name, "role", who.Role, "from", from)
	http.SetCookie(w, cookie(r, session, sessionTime))
	http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // local has made it a path of this site
}

// logout ends the session.
func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	if session, ok := sessionOf(r); ok && plausible(session) {
		if err := s.svc.Logout(r.Context(), session); err != nil {
			s.problem(w, r, principal{name: "nobody"}, err)
			return
		}
		s.wallet.forget()
	}
	http.SetCookie(w, cookie(r, "", 0))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// local gives a path of this site: where to go after logging in. Anything else is the first page.
func local(next string) string {
	if len(next) > maxParameter || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}
