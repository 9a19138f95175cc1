package server

import (
	"net/http"

	"virt-attest/verifier/api"
)

func (s *Server) webhooks(c *call, _ *none) (*api.List[api.Webhook], error) {
	return listed(s.svc.Webhooks(c.r.Context(), c.who.caller()))
}

type newWebhookIn struct{ Body api.Webhook }

func (s *Server) newWebhook(c *call, in *newWebhookIn) (*api.Webhook, error) {
	if in.Body.ID != "" {
		return nil, api.NewProblem(http.StatusBadRequest, "a new webhook has no id; PUT changes one")
	}
	w, err := s.svc.PutWebhook(c.r.Context(), c.who.caller(), in.Body)
	if err == nil {
		c.created("webhooks/" + w.ID)
	}
	return w, err
}

type putWebhookIn struct {
	byID
	Body api.Webhook
}

func (s *Server) putWebhook(c *call, in *putWebhookIn) (*api.Webhook, error) {
	if in.Body.ID != "" && in.Body.ID != in.ID {
		return nil, api.NewProblem(http.StatusBadRequest, "the body names another webhook")
	}
	in.Body.ID = in.ID
	return s.svc.PutWebhook(c.r.Context(), c.who.caller(), in.Body)
}

func (s *Server) deleteWebhook(c *call, in *byID) error {
	return s.svc.DeleteWebhook(c.r.Context(), c.who.caller(), in.ID)
}

func (s *Server) testWebhook(c *call, in *byID) (*api.Webhook, error) {
	return s.svc.TestWebhook(c.r.Context(), c.who.caller(), in.ID)
}

type auditIn struct {
	Before int64 `query:"before" doc:"sequence number; 0: from the newest"`
	Limit  int   `query:"limit" doc:"at most 1000; 0: 100"`
}

func (s *Server) audit(c *call, in *auditIn) (*api.Batch[api.AuditEntry], error) {
	p, err := pageIn{Limit: in.Limit}.page()
	if err != nil {
		return nil, err
	}
	if p.Limit == 0 {
		p.Limit = api.DefaultPageSize
	}
	l, err := s.svc.Audit(c.r.Context(), c.who.caller(), in.Before, p.Limit)
	if err != nil {
		return nil, err
	}
	b := &api.Batch[api.AuditEntry]{Items: append([]api.AuditEntry{}, l...)}
	if len(l) == p.Limit && l[len(l)-1].Seq > 1 {
		b.Next = number(l[len(l)-1].Seq)
	}
	return b, nil
}

func (s *Server) checkAudit(c *call, _ *none) (*api.AuditCheck, error) {
	return s.svc.CheckAudit(c.r.Context(), c.who.caller())
}

func (s *Server) tokens(c *call, _ *none) (*api.List[api.Token], error) {
	return listed(s.svc.Tokens(c.r.Context(), c.who.caller()))
}

type newTokenIn struct{ Body api.TokenRequest }

func (s *Server) newToken(c *call, in *newTokenIn) (*api.Token, error) {
	t, err := s.svc.NewToken(c.r.Context(), c.who.caller(), in.Body)
	if err == nil {
		c.created("tokens/" + t.ID)
	}
	return t, err
}

func (s *Server) deleteToken(c *call, in *byID) error {
	defer s.wallet.forget()
	return s.svc.DeleteToken(c.r.Context(), c.who.caller(), in.ID)
}

func (s *Server) enrolTokens(c *call, _ *none) (*api.List[api.EnrolToken], error) {
	return listed(s.svc.EnrolTokens(c.r.Context(), c.who.caller()))
}

type newEnrolIn struct{ Body api.EnrolTokenRequest }

func (s *Server) newEnrolToken(c *call, in *newEnrolIn) (*api.EnrolToken, error) {
	t, err := s.svc.NewEnrolToken(c.r.Context(), c.who.caller(), in.Body.Name, in.Body.TTL)
	if err == nil {
		c.created("enrol-tokens/" + t.ID)
	}
	return t, err
}

func (s *Server) deleteEnrolToken(c *call, in *byID) error {
	return s.svc.DeleteEnrolToken(c.r.Context(), c.who.caller(), in.ID)
}

func (s *Server) alerts(c *call, in *struct {
	All bool `query:"all" doc:"closed ones too"`
}) (*api.List[api.Alert], error) {
	return listed(s.svc.Alerts(c.r.Context(), c.who.caller(), in.All))
}

type byNumber struct {
	ID int64 `path:"id"`
}

func (s *Server) ack(c *call, in *byNumber) (*api.Alert, error) {
	return s.svc.AckAlert(c.r.Context(), c.who.caller(), in.ID)
}
