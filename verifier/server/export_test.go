package server

// Patterns lists the patterns of the route table with who may use each.
func Patterns() map[string]string {
	out := make(map[string]string)
	for _, r := range (&Server{}).routes() {
		out[r.pattern] = string(r.access)
	}
	return out
}

// The kinds of access, for tests.
const (
	Anyone    = string(anyone)
	Operators = string(operators)
	Hosts     = string(hosts)
)

// Judge exposes what the policy makes of a peer of the unix socket.
func Judge(own uint32, group *uint32, uid uint32, groups []uint32) (operator, host bool) {
	p := policy{own: own, group: group}.ofPeer(uid, groups)
	return p.operator, p.host
}
