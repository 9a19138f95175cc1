package server

import "virt-attest/verifier/api"

type directIn struct {
	byID
	Body api.DirectRequest
}

func (s *Server) direct(c *call, in *directIn) (*api.DirectChallenge, error) {
	return s.svc.Direct(c.r.Context(), c.who.caller(), in.ID, in.Body)
}

type linkIn struct {
	byID
	Body api.LinkRequest
}

func (s *Server) link(c *call, in *linkIn) (*api.Link, error) {
	return s.svc.Link(c.r.Context(), c.who.caller(), in.ID, in.Body)
}
