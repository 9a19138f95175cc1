package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"sync"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/server/config"
)

// Backend is what a Server serves.
type Backend interface {
	api.Service
	api.HostService
	// LoadIssuers reads the accepted issuers of EK certificates again.
	LoadIssuers() error
	// Close ends polls, streams and challenges, so that nothing keeps the servers.
	Close()
}

// Options are what a Server may have besides.
type Options struct {
	Web     http.Handler // the web page, served on listen.web; it finds who asks by api.CallerOf. nil: none
	Metrics http.Handler // nil: none
	// Observe is told of every request, by its route's pattern. nil: nobody is.
	Observe func(route string, status int, took time.Duration)
}

// Server serves a Backend.
type Server struct {
	conf    Config
	opts    Options
	log     *slog.Logger
	svc     api.Service
	hostd   api.HostService
	backend Backend
	policy  policy
	bulk    *gate
	wallet  *wallet
	streams streams
	openapi []byte

	heartbeat time.Duration // of event streams
	patience  time.Duration // with a reader of an event stream
	closing   chan struct{} // closed when the Server ends

	unix *capped // nil where not configured
	tls  *capped
	web  *capped
	pki  *pki
}

// New opens the listeners. Nothing is served before Run.
func New(ctx context.Context, conf Config, b Backend, opts Options, log *slog.Logger) (*Server, error) {
	s := &Server{conf: conf, opts: opts, log: log, svc: b, hostd: b, backend: b, bulk: newGate(maxBulk, maxBulkEach), wallet: newWallet(b),
		heartbeat: beat, patience: streamWrite, closing: make(chan struct{})}
	var err error
	if s.openapi, err = OpenAPI(); err != nil {
		return nil, err
	}
	s.policy, err = newPolicy(conf.Operators.Group, conf.Operators.Names, conf.Operators.Roles)
	var unknown user.UnknownGroupError
	if errors.As(err, &unknown) {
		log.Warn("the operators' group does not exist: only root is an operator on the unix socket", "group", conf.Operators.Group)
	} else if err != nil {
		return nil, err
	}
	if err := s.listen(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Server) listen(ctx context.Context) error {
	l := s.conf.Listen
	if l.Unix != "" {
		u, err := listenUnix(ctx, l.Unix)
		if err != nil {
			return err
		}
		s.unix = limit(u, l.Connections, 0)
	}
	if l.TLS != "" || l.Web != "" && !config.Plain(l.Web) {
		var err error
		if s.pki, err = newPKI(s.conf.TLS.CA, s.conf.TLS.Cert, s.conf.TLS.Key, s.log); err != nil {
			return err
		}
	}
	for _, x := range []struct {
		address string
		into    **capped
	}{{l.TLS, &s.tls}, {l.Web, &s.web}} {
		if x.address == "" {
			continue
		}
		t, err := new(net.ListenConfig).Listen(ctx, "tcp", x.address)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		*x.into = limit(t, l.Connections, l.PerAddress)
	}
	return nil
}

// WebAddr is where people, browsers and programs with a token are served, or nil.
func (s *Server) WebAddr() net.Addr {
	if s.web == nil {
		return nil
	}
	return s.web.Addr()
}

// TLSAddr is where TLS is served, or nil.
func (s *Server) TLSAddr() net.Addr {
	if s.tls == nil {
		return nil
	}
	return s.tls.Addr()
}

func (s *Server) close() {
	for _, l := range []*capped{s.unix, s.tls, s.web} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// Run serves until ctx ends or a listener fails, gives requests under way a moment, and
// returns why it ended (nil: ctx).
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := s.handler()
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	run := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- err
				cancel()
			}
		})
	}
	var servers []*http.Server
	for _, l := range []struct {
		*capped
		on     listener
		secure *tls.Config // nil: without TLS
	}{{s.unix, onUnix, nil}, {s.tls, onTLS, s.pki.config(true)}, {s.web, onWeb, s.webTLS()}} {
		if l.capped == nil {
			continue
		}
		srv := s.httpServer(h)
		srv.ConnContext, srv.TLSConfig = s.policy.connContext(l.on), l.secure
		servers = append(servers, srv)
		if l.secure != nil {
			run(func() error { return srv.ServeTLS(l.capped, "", "") })
		} else {
			run(func() error { return srv.Serve(l.capped) })
		}
	}
	if s.pki != nil {
		run(func() error { return s.watchPKI(ctx) })
	}
	run(func() error { return s.watchIssuers(ctx) })
	<-ctx.Done()
	close(s.closing)
	s.backend.Close()
	stop(servers)
	wg.Wait()
	close(failed)
	return <-failed
}

// webTLS is how listen.web is secured; nil: it is on this machine only.
func (s *Server) webTLS() *tls.Config {
	if config.Plain(s.conf.Listen.Web) {
		return nil
	}
	return s.pki.config(false)
}

// watchPKI takes renewed certificates into use for the connections to come.
func (s *Server) watchPKI(ctx context.Context) error {
	c := s.conf.TLS
	return watch(ctx, s.log, []string{filepath.Dir(c.CA), filepath.Dir(c.Cert), filepath.Dir(c.Key)}, func() {
		if err := s.pki.load(); err != nil {
			s.log.Error("the TLS files cannot be used, going on with those before", "err", err)
		}
	})
}

// watchIssuers takes new issuers of EK certificates into use for the enrolments to come.
func (s *Server) watchIssuers(ctx context.Context) error {
	dir := s.conf.Hosts.EKIssuers
	if _, err := os.Stat(dir); err != nil {
		s.log.Info("no issuers of EK certificates: operators approve hosts", "directory", dir, "err", err)
		return nil
	}
	return watch(ctx, s.log, []string{dir}, func() {
		if err := s.backend.LoadIssuers(); err != nil {
			s.log.Error("the issuers of EK certificates cannot be read, going on with those before", "err", err)
		}
	})
}

// stop ends the servers: listeners at once, requests within stopTimeout.
func stop(servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, srv := range servers {
		wg.Go(func() {
			if srv.Shutdown(ctx) != nil {
				_ = srv.Close()
			}
		})
	}
	wg.Wait()
}

// httpServer has every deadline that a connection needs; those of bodies and answers are set per
// route.
func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second,
			WriteByteTimeout: writeTimeout},
	}
}
