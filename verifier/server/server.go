package server

import (
	"context"
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

	"virt-attest/internal/version"
	"virt-attest/verifier/engine"
	"virt-attest/verifier/store"
)

// Server serves an Engine.
type Server struct {
	conf   Config
	log    *slog.Logger
	engine *engine.Engine
	policy policy
	bulk   *gate

	unix *capped // nil where not configured
	tls  *capped
	pki  *pki
}

// New opens the listeners. Nothing is served before Run.
func New(ctx context.Context, conf Config, e *engine.Engine, log *slog.Logger) (*Server, error) {
	s := &Server{conf: conf, log: log, engine: e, bulk: newGate(maxBulk, maxBulkEach)}
	var err error
	s.policy, err = newPolicy(conf.Operators.Group, conf.Operators.Names)
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
	l, lc := s.conf.Listen, new(net.ListenConfig)
	if l.Unix != "" {
		u, err := listenUnix(ctx, l.Unix)
		if err != nil {
			return err
		}
		s.unix = limit(u, l.Connections, 0)
	}
	if l.TLS != "" {
		var err error
		if s.pki, err = newPKI(s.conf.TLS.CA, s.conf.TLS.Cert, s.conf.TLS.Key, s.log); err != nil {
			return err
		}
		t, err := lc.Listen(ctx, "tcp", l.TLS)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		s.tls = limit(t, l.Connections, l.PerAddress)
	}
	return nil
}

// TLSAddr is where TLS is served, or nil.
func (s *Server) TLSAddr() net.Addr {
	if s.tls == nil {
		return nil
	}
	return s.tls.Addr()
}

func (s *Server) close() {
	for _, l := range []*capped{s.unix, s.tls} {
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
	if s.unix != nil {
		srv := s.httpServer(h)
		srv.ConnContext = s.policy.connContext
		servers = append(servers, srv)
		run(func() error { return srv.Serve(s.unix) })
	}
	if s.tls != nil {
		srv := s.httpServer(h)
		srv.TLSConfig = s.pki.config()
		servers = append(servers, srv)
		run(func() error { return srv.ServeTLS(s.tls, "", "") })
		run(func() error { return s.watchPKI(ctx) })
	}
	run(func() error { return s.watchIssuers(ctx) })
	<-ctx.Done()
	s.engine.Close() // ends polls and challenges, so that nothing keeps the servers
	stop(servers)
	wg.Wait()
	close(failed)
	return <-failed
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
		if err := s.engine.LoadIssuers(); err != nil {
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

// Start opens database, engine and listeners as configured, calls ready, and serves until ctx ends.
func Start(ctx context.Context, conf Config, log *slog.Logger, ready func()) error {
	database := store.Config{Path: conf.Store.Path, URL: conf.Store.URL, Chain: engine.Chain, Log: log}
	if database.URL != "" {
		database.Path = ""
	}
	st, err := store.Open(ctx, database)
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }()
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	e, err := engine.New(ctx, engine.Config{Store: st, Log: log, Version: version.Version, Hostname: hostname, Lifetime: time.Duration(conf.Verdict.Lifetime),
		HostLifetime: time.Duration(conf.Verdict.HostLifetime), Workers: conf.Limits.Workers, EKIssuers: conf.Hosts.EKIssuers,
		Retention: store.Retention{Reports: conf.Store.Reports, Evidence: conf.Store.Evidence, Age: time.Duration(conf.Store.Age)}})
	if err != nil {
		return err
	}
	defer e.Close()
	s, err := New(ctx, conf, e, log)
	if err != nil {
		return err
	}
	ready()
	return s.Run(ctx)
}
