package server

import (
	"net/http"
	"strconv"

	"virt-attest/verifier/api"
)

// documents answers about documents of one kind.
type documents struct {
	*Server
	kind api.DocKind
}

type byName struct {
	Name string `path:"name"`
}

type byVersion struct {
	byName
	Version int `path:"version"`
}

func (d documents) list(c *call, _ *none) (*api.List[api.Document], error) {
	return listed(d.svc.Documents(c.r.Context(), c.who.caller(), d.kind))
}

type docIn struct {
	byName
	Version int `query:"version" doc:"0: the active one"`
	ifNoneMatch
}

func (d documents) get(c *call, in *docIn) error {
	b, v, err := d.svc.Document(c.r.Context(), c.who.caller(), d.kind, in.Name, in.Version)
	if err != nil {
		return err
	}
	c.w.Header().Set(api.VersionHeader, strconv.Itoa(v.Version))
	if c.unchanged(quoted(v.SHA256), in.Have) {
		return nil
	}
	return c.send(api.TypeBinary, b)
}

type putDocIn struct {
	byName
	ifMatch
	Activate *bool  `query:"activate" doc:"make it the one that counts at once; true unless it is said"`
	Note     string `query:"note" doc:"what changed, at most 1000 bytes"`
	Body     []byte `body:"application/octet-stream"`
}

func (d documents) put(c *call, in *putDocIn) (*api.DocVersion, error) {
	if len(in.Note) > api.MaxNote {
		return nil, api.NewProblem(http.StatusBadRequest, "note has more than %d bytes", api.MaxNote)
	}
	put := api.DocPut{Content: in.Body, Note: in.Note, Activate: in.Activate == nil || *in.Activate}
	if in.Want != "" {
		put.Match = func(active string) bool {
			if active != "" {
				active = quoted(active)
			}
			return changed(in.Want, active) == nil
		}
	}
	return d.svc.PutDocument(c.r.Context(), c.who.caller(), d.kind, in.Name, put)
}

func (d documents) remove(c *call, in *byName) error {
	return d.svc.DeleteDocument(c.r.Context(), c.who.caller(), d.kind, in.Name)
}

func (d documents) versions(c *call, in *byName) (*api.List[api.DocVersion], error) {
	return listed(d.svc.DocVersions(c.r.Context(), c.who.caller(), d.kind, in.Name))
}

func (d documents) activate(c *call, in *byVersion) (*api.Job, error) {
	j, err := d.svc.Activate(c.r.Context(), c.who.caller(), d.kind, in.Name, in.Version)
	if err == nil {
		c.accepted(j)
	}
	return j, err
}

func (d documents) impact(c *call, in *byVersion) (*api.Job, error) {
	j, err := d.svc.Impact(c.r.Context(), c.who.caller(), d.kind, in.Name, in.Version)
	if err == nil {
		c.accepted(j)
	}
	return j, err
}

type diffIn struct {
	byName
	From int `query:"from" doc:"version; 0: the active one"`
	To   int `query:"to" doc:"version; 0: the active one"`
}

func (d documents) diff(c *call, in *diffIn) (*api.List[api.DocChange], error) {
	return listed(d.svc.DocDiff(c.r.Context(), c.who.caller(), d.kind, in.Name, in.From, in.To))
}

type acceptIn struct {
	byName
	Body api.AcceptRequest
}

func (s *Server) accept(c *call, in *acceptIn) (*api.Accepted, error) {
	return s.svc.Accept(c.r.Context(), c.who.caller(), in.Name, in.Body)
}
