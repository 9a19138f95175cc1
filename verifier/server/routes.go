package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"virt-attest/internal/channel"
	"virt-attest/internal/version"
	"virt-attest/verifier/api"
)

// access says who may use a route.
type access string

const (
	anyone    access = "a credential of any kind"
	operators access = "an operator"
	hosts     access = "a host"
)

// route is one thing that can be asked for.
type route struct {
	pattern string // of http.ServeMux
	access  access
	body    int64         // bytes that a request may bring; 0: none
	bulk    bool          // carries evidence, logs or reference values
	takes   time.Duration // at most, from the request's body to its answer; 0: writeTimeout
	handle  func(*call) error
}

// routes is the whole interface. What is not in it is not served.
func (s *Server) routes() []route {
	return []route{
		{pattern: "GET /healthz", access: anyone, handle: func(c *call) error { return c.json(map[string]string{"status": "alive"}) }},
		{pattern: "GET /readyz", access: anyone, handle: s.ready},
		{pattern: "GET /api/v1/version", access: anyone, handle: func(c *call) error { return c.json(api.Version{Version: version.Version, API: "v1"}) }},

		{pattern: "GET /api/v1/hosts", access: operators, handle: list(s.engine.Hosts)},
		{pattern: "POST /api/v1/hosts/{id}/approve", access: operators, body: api.MaxRequest, handle: s.approve},
		{pattern: "DELETE /api/v1/hosts/{id}", access: operators, handle: remove(s.engine.DeleteHost)},
		{pattern: "GET /api/v1/vms", access: operators, handle: list(s.engine.VMs)},
		{pattern: "DELETE /api/v1/vms/{id}", access: operators, handle: remove(s.engine.DeleteVM)},
		{pattern: "POST /api/v1/attest", access: operators, body: api.MaxRequest, takes: api.MaxTimeout + writeTimeout, handle: s.attest},
		{pattern: "GET /api/v1/reports/{id}", access: operators, handle: s.report},
		{pattern: "GET /api/v1/reports/{id}/evidence", access: operators, takes: bulkWrite, handle: file(s.engine.ReportEvidence, api.TypeCBOR)},
		{pattern: "GET /api/v1/machines/{id}/ima", access: operators, takes: bulkWrite, handle: file(s.engine.MachineIMA, api.TypeBinary)},
		{pattern: "GET /api/v1/machines/{id}/evidence", access: operators, takes: bulkWrite, handle: file(s.engine.MachineEvidence, api.TypeCBOR)},
		{pattern: "PUT /api/v1/machines/{id}/rim", access: operators, body: api.MaxRequest, handle: s.assign},
		{pattern: "GET /api/v1/rims", access: operators, handle: s.rims},
		{pattern: "GET /api/v1/rims/{id}", access: operators, takes: bulkWrite, handle: file(s.rim, api.TypeBinary)},
		{pattern: "PUT /api/v1/rims/{id}", access: operators, body: api.MaxRIM, bulk: true, handle: s.putRIM},
		{pattern: "DELETE /api/v1/rims/{id}", access: operators, handle: remove(s.deleteRIM)},

		{pattern: "POST /api/v1/host/hello", access: hosts, body: api.MaxHello, handle: s.hello},
		{pattern: "GET /api/v1/host/challenges", access: hosts, takes: api.MaxWait + writeTimeout, handle: s.challenges},
		{pattern: "POST /api/v1/host/challenge", access: hosts, body: api.MaxRequest, handle: s.challenge},
		{pattern: "POST /api/v1/host/evidence", access: hosts, body: s.conf.Limits.Evidence, bulk: true, takes: api.MaxTimeout, handle: s.evidence},
		{pattern: "POST /api/v1/host/activated", access: hosts, body: api.MaxRequest, handle: s.activated},
	}
}

// call is one request with its body read.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	who  principal
	body []byte
}

func (c *call) client() string { return c.who.client }

// caller is who asks, for what is done in their name.
func (c *call) caller() api.Caller { return api.Caller{Name: c.who.name, Role: api.RoleOperator} }

func (c *call) id() string { return c.r.PathValue("id") }

// in decodes the body as JSON, strictly.
func (c *call) in(v any) error {
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return api.NewProblem(http.StatusBadRequest, "the request cannot be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return api.NewProblem(http.StatusBadRequest, "something follows the request's JSON")
	}
	return nil
}

// inCBOR decodes the body as CBOR, strictly.
func (c *call) inCBOR(v any) error {
	if err := channel.Decode(c.body, v); err != nil {
		return api.NewProblem(http.StatusBadRequest, "the request cannot be read: %v", err)
	}
	return nil
}

func (c *call) json(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.send(api.TypeJSON, append(b, '\n'))
}

func (c *call) cbor(v any) error {
	b, err := channel.Encode(v)
	if err != nil {
		return err
	}
	return c.send(api.TypeCBOR, b)
}

func (c *call) send(kind string, b []byte) error {
	c.w.Header().Set("Content-Type", kind)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	if _, err := c.w.Write(b); err != nil {
		return errors.Join(errSent, err)
	}
	return nil
}

func (c *call) nothing() error {
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// errSent says that an answer was begun: no problem can be reported any more.
var errSent = errors.New("the answer did not reach its reader")

// list answers with all that f lists.
func list[T any](f func(context.Context, api.Caller, api.MachineFilter, api.Page) (*api.List[T], error)) func(*call) error {
	return func(c *call) error {
		all := []T{}
		for p := (api.Page{Limit: api.MaxPageSize}); ; {
			l, err := f(c.r.Context(), c.caller(), api.MachineFilter{}, p)
			if err != nil {
				return err
			}
			all = append(all, l.Items...)
			if p.Cursor = l.Next; p.Cursor == "" {
				return c.json(all)
			}
		}
	}
}

func (s *Server) rims(c *call) error {
	docs, err := s.engine.Documents(c.r.Context(), c.caller(), api.DocRIM)
	if err != nil {
		return err
	}
	out := []api.RIMInfo{}
	for _, d := range docs {
		out = append(out, api.RIMInfo{Name: d.Name, SHA256: d.SHA256, Files: d.Files, Modified: d.Modified, Assigned: d.Assigned})
	}
	return c.json(out)
}

func (s *Server) rim(ctx context.Context, who api.Caller, name string) ([]byte, error) {
	b, _, err := s.engine.Document(ctx, who, api.DocRIM, name, 0)
	return b, err
}

func (s *Server) deleteRIM(ctx context.Context, who api.Caller, name string) error {
	return s.engine.DeleteDocument(ctx, who, api.DocRIM, name)
}

// file answers with bytes.
func file(f func(context.Context, api.Caller, string) ([]byte, error), kind string) func(*call) error {
	return func(c *call) error {
		b, err := f(c.r.Context(), c.caller(), c.id())
		if err != nil {
			return err
		}
		return c.send(kind, b)
	}
}

// remove does f and answers with nothing.
func remove(f func(context.Context, api.Caller, string) error) func(*call) error {
	return func(c *call) error {
		if err := f(c.r.Context(), c.caller(), c.id()); err != nil {
			return err
		}
		return c.nothing()
	}
}

func (s *Server) ready(c *call) error {
	if err := s.engine.Ready(c.r.Context()); err != nil {
		return err
	}
	return c.json(map[string]string{"status": "ready"})
}

func (s *Server) approve(c *call) error {
	var a api.Approve
	if err := c.in(&a); err != nil {
		return err
	}
	h, err := s.engine.ApproveHost(c.r.Context(), c.caller(), c.id(), a)
	if err != nil {
		return err
	}
	return c.json(h)
}

func (s *Server) attest(c *call) error {
	var a api.AttestRequest
	if err := c.in(&a); err != nil {
		return err
	}
	r, err := s.engine.Attest(c.r.Context(), c.caller(), a)
	if err != nil {
		return err
	}
	return c.json(r)
}

func (s *Server) report(c *call) error {
	r, err := s.engine.Report(c.r.Context(), c.caller(), c.id())
	if err != nil {
		return err
	}
	return c.json(r)
}

func (s *Server) assign(c *call) error {
	var a api.Assign
	if err := c.in(&a); err != nil {
		return err
	}
	now, err := s.engine.Settings(c.r.Context(), c.caller(), c.id())
	if err != nil {
		return err
	}
	now.RIMs = a.RIMs
	if err := s.engine.PutSettings(c.r.Context(), c.caller(), c.id(), *now); err != nil {
		return err
	}
	return c.nothing()
}

func (s *Server) putRIM(c *call) error {
	if _, err := s.engine.PutDocument(c.r.Context(), c.caller(), api.DocRIM, c.id(), api.DocPut{Content: c.body, Activate: true}); err != nil {
		return err
	}
	return c.nothing()
}

func (s *Server) hello(c *call) error {
	var h api.HostHello
	if err := c.inCBOR(&h); err != nil {
		return err
	}
	w, err := s.engine.Hello(c.r.Context(), c.client(), &h)
	if err != nil {
		return err
	}
	return c.cbor(w)
}

func (s *Server) challenges(c *call) error {
	q := c.r.URL.Query()
	wait, err := strconv.ParseFloat(q.Get("wait"), 64)
	if err != nil || !(wait >= 0 && wait <= api.MaxWait.Seconds()) {
		return api.NewProblem(http.StatusBadRequest, "wait is not a number of seconds from 0 to %v", api.MaxWait.Seconds())
	}
	p, failed, err := s.engine.Poll(c.r.Context(), c.client(), q.Get("host"), time.Duration(wait*float64(time.Second)))
	if err != nil {
		return err
	}
	if err := c.cbor(p); err != nil {
		failed()
		return err
	}
	if err := http.NewResponseController(c.w).Flush(); err != nil {
		failed()
		return errors.Join(errSent, err)
	}
	return nil
}

func (s *Server) challenge(c *call) error {
	var r api.ChallengeRequest
	if err := c.inCBOR(&r); err != nil {
		return err
	}
	ch, err := s.engine.Challenge(c.r.Context(), c.client(), r.Host, r.Scheme)
	if err != nil {
		return err
	}
	return c.cbor(ch)
}

func (s *Server) evidence(c *call) error {
	r, err := s.engine.Evidence(c.r.Context(), c.client(), c.body)
	if err != nil {
		return err
	}
	return c.cbor(r)
}

func (s *Server) activated(c *call) error {
	var a api.Activated
	if err := c.inCBOR(&a); err != nil {
		return err
	}
	if err := s.engine.Activated(c.r.Context(), c.client(), &a); err != nil {
		return err
	}
	return c.nothing()
}
