package server

import (
	"context"
	"net/http"

	"virt-attest/internal/version"
	"virt-attest/verifier/api"
)

// health is the answer of healthz and readyz.
type health struct {
	Status string `json:"status"`
}

func (s *Server) alive(*call, *none) (*health, error) { return &health{"alive"}, nil }

func (s *Server) ready(c *call, _ *none) (*health, error) {
	if err := s.svc.Ready(c.r.Context()); err != nil {
		return nil, api.NewProblem(http.StatusServiceUnavailable, "the Verifier's database does not answer")
	}
	return &health{"ready"}, nil
}

func (s *Server) metrics(c *call, _ *none) error {
	if s.opts.Metrics == nil {
		return api.NewProblem(http.StatusNotFound, "this Verifier has no metrics")
	}
	s.opts.Metrics.ServeHTTP(c.w, c.r)
	return nil
}

func (s *Server) jwks(c *call, _ *none) ([]byte, error) {
	ctx, cancel := context.WithTimeout(c.r.Context(), authTimeout)
	defer cancel()
	return s.svc.JWKS(ctx)
}

func (s *Server) version(*call, *none) (*api.Version, error) {
	return &api.Version{Version: version.Version, API: "v1"}, nil
}

func (s *Server) description(*call, *none) ([]byte, error) { return s.openapi, nil }

func (s *Server) overview(c *call, _ *none) (*api.Overview, error) {
	return s.svc.Overview(c.r.Context(), c.who.caller())
}

func (s *Server) topology(c *call, _ *none) (*api.Topology, error) {
	return s.svc.Topology(c.r.Context(), c.who.caller())
}

type statsIn struct {
	Seconds int `query:"seconds" doc:"how far back, at most 366 days; 0: one day"`
	Steps   int `query:"steps" doc:"points, at most 2000; 0: 120"`
}

func (s *Server) stats(c *call, in *statsIn) (*api.Stats, error) {
	if in.Seconds == 0 {
		in.Seconds = 24 * 3600
	}
	if in.Steps == 0 {
		in.Steps = 120
	}
	if in.Seconds > maxStatsSeconds || in.Steps > maxStatsSteps {
		return nil, api.NewProblem(http.StatusBadRequest, "seconds are at most %d, steps at most %d", maxStatsSeconds, maxStatsSteps)
	}
	return s.svc.Stats(c.r.Context(), c.who.caller(), in.Seconds, in.Steps)
}

func (s *Server) replicas(c *call, _ *none) (*api.List[api.Replica], error) {
	return listed(s.svc.Replicas(c.r.Context(), c.who.caller()))
}

type byID struct {
	ID string `path:"id"`
}

func (s *Server) job(c *call, in *byID) (*api.Job, error) {
	return s.svc.Job(c.r.Context(), c.who.caller(), in.ID)
}
