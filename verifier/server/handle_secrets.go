package server

import "virt-attest/verifier/api"

func (s *Server) secrets(c *call, _ *none) (*api.List[api.Secret], error) {
	return listed(s.svc.Secrets(c.r.Context(), c.who.caller()))
}

type putSecretIn struct {
	byName
	Body api.SecretPut
}

func (s *Server) putSecret(c *call, in *putSecretIn) error {
	return s.svc.PutSecret(c.r.Context(), c.who.caller(), in.Name, in.Body)
}

type secretIn struct {
	byName
	Tenant string `query:"tenant" doc:"whose it is; \"\": the caller's"`
}

func (s *Server) deleteSecret(c *call, in *secretIn) error {
	return s.svc.DeleteSecret(c.r.Context(), c.who.caller(), in.Name, in.Tenant)
}

type secretVMIn struct {
	secretIn
	VM string `path:"vm"`
}

func (s *Server) assignSecret(c *call, in *secretVMIn) error {
	return s.svc.AssignSecret(c.r.Context(), c.who.caller(), in.Name, in.Tenant, in.VM, true)
}

func (s *Server) unassignSecret(c *call, in *secretVMIn) error {
	return s.svc.AssignSecret(c.r.Context(), c.who.caller(), in.Name, in.Tenant, in.VM, false)
}

type rulesIn struct {
	Body api.RulesRequest `body:"application/cbor"`
}

func (s *Server) rules(c *call, in *rulesIn) (*api.Rules, error) {
	return s.hostd.Rules(c.r.Context(), c.who.client, &in.Body)
}

type actedIn struct {
	Body api.Acted `body:"application/cbor"`
}

func (s *Server) acted(c *call, in *actedIn) error {
	return s.hostd.Acted(c.r.Context(), c.who.client, &in.Body)
}

type releaseIn struct {
	Body api.ReleaseRequest `body:"application/cbor"`
}

func (s *Server) release(c *call, in *releaseIn) (*api.Release, error) {
	return s.hostd.Release(c.r.Context(), c.who.client, &in.Body)
}
