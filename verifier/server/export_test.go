package server

import (
	"reflect"
	"time"

	"virt-attest/verifier/api"
)

// Route is a route of the table, for tests.
type Route struct {
	Pattern string
	Access  string
	Whole   bool
	Body    int64
	JSON    bool // takes JSON
	Params  []string
	In      reflect.Type
}

// Routes lists the table of routes.
func Routes() []Route {
	var out []Route
	for _, r := range (&Server{conf: Defaults()}).routes() {
		x := Route{Pattern: r.pattern, Access: string(r.access), Whole: r.whole, Body: r.body, JSON: r.in.body != nil && r.in.kind == api.TypeJSON, In: r.in.data}
		for _, f := range r.in.fields {
			if f.in == "query" {
				x.Params = append(x.Params, f.name)
			}
		}
		out = append(out, x)
	}
	return out
}

// Patterns lists the patterns of the table with who may use each.
func Patterns() map[string]string {
	out := make(map[string]string)
	for _, r := range Routes() {
		out[r.Pattern] = r.Access
	}
	return out
}

// The kinds of access, for tests.
const (
	Public    = string(public)
	Anyone    = string(anyone)
	Operators = string(operators)
	Hosts     = string(hosts)
)

// May reports whether a role has a kind of access.
func May(role api.Role, a string) bool { return principal{role: role}.may(access(a)) }

// Judge exposes what the policy makes of a peer of the unix socket.
func Judge(own uint32, group *uint32, uid uint32, groups []uint32) (admin, host bool) {
	p := policy{own: own, group: group}.ofPeer(uid, groups)
	return p.role == api.RoleAdmin, p.host
}

// SetPace changes, before Run, how often a stream says that it is alive, and how long it waits for its reader.
func (s *Server) SetPace(beat, patience time.Duration) { s.heartbeat, s.patience = beat, patience }

// Bounds, for tests.
const (
	MaxEventStreamsEach = maxEventStreamsEach
	MaxStrikes          = maxStrikes
	StreamBuffer        = streamBuffer
)

// Cell exposes how exports write text.
func Cell(s string) string { return cell(s) }

// ReadJSON exposes how bodies are read.
func ReadJSON(b []byte, v any) error { return readJSON(b, v) }

// Local exposes where a login may go on.
func Local(next string) string { return local(next) }

// OpenStreams counts event streams.
func (s *Server) OpenStreams() int {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	return s.streams.total
}
