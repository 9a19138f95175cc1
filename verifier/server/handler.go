package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/engine"
)

// errBroken says that an answer ended in its middle: the connection is broken off, so that it is not taken for whole.
var errBroken = errors.New("the answer is not whole")

type principalKey struct{}

// handler makes the table of routes an http.Handler. Every request passes here before
// anything of it is believed: who asks is settled first, then what they may do.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	table := make(map[string]*route)
	for _, rt := range s.routes() {
		table[rt.pattern] = &rt
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, &rt) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		observed(w, s.opts.Observe, func(w http.ResponseWriter) string { return s.dispatch(w, r, mux, table) })
	})
}

// dispatch finds a request's route and who makes it, and gives the route's pattern; "": there is none.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, mux *http.ServeMux, table map[string]*route) (pattern string) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // until the route sets its own
	_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	who := principal{name: "nobody"}
	if err := s.sane(r); err != nil {
		s.problem(w, r, who, err)
		return ""
	}
	if s.isPage(r) {
		s.page(w, r)
		return pagePattern
	}
	h, pattern := mux.Handler(r)
	rt := table[pattern]
	if rt == nil || rt.access != public {
		var err error
		if who, err = s.identify(r); err != nil {
			s.problem(w, r, who, err)
			return pattern
		}
	}
	if rt == nil {
		s.problem(w, r, who, noRoute(h, r))
		return ""
	}
	mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), principalKey{}, who)))
	return pattern
}

// identify settles who asks. A request that a browser makes by its cookie must come from our own pages.
func (s *Server) identify(r *http.Request) (principal, error) {
	who, err := s.who(r)
	if err != nil {
		return who, err
	}
	if !who.may(anyone) {
		return who, who.refused(anyone)
	}
	if who.browser {
		if err := http.NewCrossOriginProtection().Check(r); err != nil {
			return who, api.NewProblem(http.StatusForbidden, "this request comes from another site")
		}
	}
	return who, nil
}

// sane refuses what no honest client sends: paths that mean another one, names of other hosts (DNS rebinding).
func (s *Server) sane(r *http.Request) error {
	p := r.URL.Path
	if len(p) > maxPath || p == "" || p[0] != '/' || path.Clean(p) != p && path.Clean(p)+"/" != p || strings.ContainsFunc(p, unicode.IsControl) {
		return api.NewProblem(http.StatusNotFound, "there is nothing at this path")
	}
	if endOf(r).on == onWeb && !s.names(r.Host) {
		return api.NewProblem(http.StatusMisdirectedRequest, "this is not the host that was asked for (listen.names has its names)")
	}
	return nil
}

// noRoute tells an unknown path from a method that a path does not have.
func noRoute(h http.Handler, r *http.Request) error {
	probe := &status{header: make(http.Header)}
	h.ServeHTTP(probe, r)
	if probe.code == http.StatusMethodNotAllowed {
		return api.NewProblem(http.StatusMethodNotAllowed, "%s is not for this path", r.Method)
	}
	return api.NewProblem(http.StatusNotFound, "there is nothing at this path")
}

// status takes the status of an answer and drops the rest.
type status struct {
	header http.Header
	code   int
}

func (s *status) Header() http.Header         { return s.header }
func (s *status) Write(b []byte) (int, error) { return len(b), nil }
func (s *status) WriteHeader(code int)        { s.code = code }

// serve does one request of a route.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, rt *route) {
	who, ok := r.Context().Value(principalKey{}).(principal)
	if !ok {
		who = principal{name: "nobody"}
	}
	defer s.rescue(w, r, who, rt.pattern)
	if err := who.allowed(rt); err != nil {
		s.problem(w, r, who, err)
		return
	}
	takes := rt.takes
	if takes == 0 {
		takes = writeTimeout
	}
	c := &call{w: w, r: r, who: who, status: rt.status}
	err := s.withBody(c, rt, func() error {
		if takes == forever {
			return rt.handle(c)
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(takes + writeTimeout))
		ctx, cancel := context.WithTimeout(r.Context(), takes)
		defer cancel()
		c.r = c.r.WithContext(ctx)
		return rt.handle(c)
	})
	if errors.Is(err, errBroken) {
		s.log.Error("an answer broke off", "who", who.name, "path", r.URL.EscapedPath(), "err", err)
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		s.problem(w, r, who, err)
	}
}

// rescue makes a panic a fault of ours.
func (s *Server) rescue(w http.ResponseWriter, r *http.Request, who principal, pattern string) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // it is compared as net/http does
		panic(p)
	}
	s.log.Error("panic in a request", "route", pattern, "panic", p, "stack", string(debug.Stack()))
	s.problem(w, r, who, api.NewProblem(http.StatusInternalServerError, "the Verifier failed; its journal has the cause"))
}

// withBody reads the body within the route's limits, and calls f. Large bodies are held in memory
// a few at a time, and fewer of one client, so that none keeps the others out.
func (s *Server) withBody(c *call, rt *route, f func() error) error {
	rc := http.NewResponseController(c.w)
	if rt.body == 0 {
		if c.r.ContentLength != 0 {
			c.w.Header().Set("Connection", "close")
			return api.NewProblem(http.StatusBadRequest, "this request takes no body")
		}
		_ = rc.SetReadDeadline(time.Time{})
		return f()
	}
	if c.r.ContentLength > rt.body {
		c.w.Header().Set("Connection", "close")
		return api.NewProblem(http.StatusRequestEntityTooLarge, "at most %d bytes", rt.body)
	}
	if e := c.r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		c.w.Header().Set("Connection", "close")
		return api.NewProblem(http.StatusUnsupportedMediaType, "bodies are not compressed here")
	}
	timeout := bodyTimeout
	if rt.bulk {
		leave, err := s.bulk.enter(c.r.Context(), c.who.name)
		if err != nil {
			c.w.Header().Set("Connection", "close")
			return err
		}
		defer leave()
		timeout = bulkTimeout
	}
	_ = rc.SetReadDeadline(time.Now().Add(timeout))
	var err error
	c.body, err = io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, rt.body))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		c.w.Header().Set("Connection", "close")
		return api.NewProblem(http.StatusRequestEntityTooLarge, "at most %d bytes", rt.body)
	}
	if err != nil {
		c.w.Header().Set("Connection", "close")
		return api.NewProblem(http.StatusRequestTimeout, "the body did not come whole within %v", timeout)
	}
	_ = rc.SetReadDeadline(time.Time{}) // or the connection would break while the answer is made
	return f()
}

// problem answers with an error. What is our fault is told to the log and not to the caller.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, who principal, err error) {
	if errors.Is(err, errSent) {
		return
	}
	p := problemOf(err)
	level := s.log.Info
	if p.Status >= http.StatusInternalServerError {
		level = s.log.Error
	}
	level("request refused", "who", who.name, "method", r.Method, "path", r.URL.EscapedPath(), "status", p.Status, "err", err.Error())
	b, err := json.Marshal(p)
	if err != nil {
		b = nil
	}
	h := w.Header()
	for _, of := range []string{"Content-Length", "Content-Disposition", "ETag", "Location"} {
		h.Del(of) // of an answer that was not made
	}
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="virt-attest"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", fmt.Sprint(int(strikeTime.Seconds())/6))
	}
	h.Set("Content-Type", api.TypeProblem)
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n'))
}

// problemOf says whose fault an error is.
func problemOf(err error) *api.Problem {
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	for _, k := range []struct {
		kind   error
		status int
	}{
		{engine.ErrInvalid, http.StatusBadRequest}, {attest.ErrMalformed, http.StatusBadRequest}, {engine.ErrForbidden, http.StatusForbidden},
		{engine.ErrNotFound, http.StatusNotFound}, {engine.ErrConflict, http.StatusConflict}, {engine.ErrGone, http.StatusGone},
		{engine.ErrChanged, http.StatusPreconditionFailed}, {engine.ErrRepeat, http.StatusUnprocessableEntity},
		{engine.ErrBusy, http.StatusTooManyRequests},
	} {
		if errors.Is(err, k.kind) {
			return api.NewProblem(k.status, "%s", err.Error())
		}
	}
	if errors.Is(err, engine.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return api.NewProblem(http.StatusServiceUnavailable, "the Verifier cannot answer now: its database or its workers did not answer in time")
	}
	return api.NewProblem(http.StatusInternalServerError, "the Verifier failed; its journal has the cause")
}
