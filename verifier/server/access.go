package server

import (
	"net/http"
	"slices"

	"virt-attest/verifier/api"
)

// access says who may use a route.
type access string

const (
	public     access = "nobody in particular" // without a credential
	anyone     access = "a credential of any kind"
	readers    access = "a viewer or a scheduler"
	viewers    access = "a viewer"
	schedulers access = "a scheduler or an operator"
	operators  access = "an operator"
	admins     access = "an admin"
	hosts      access = "a host"
)

// roles are those that have a kind of access.
func (a access) roles() []api.Role {
	switch a {
	case anyone, readers:
		return []api.Role{api.RoleViewer, api.RoleScheduler, api.RoleOperator, api.RoleAdmin}
	case viewers:
		return []api.Role{api.RoleViewer, api.RoleOperator, api.RoleAdmin}
	case schedulers:
		return []api.Role{api.RoleScheduler, api.RoleOperator, api.RoleAdmin}
	case operators:
		return []api.Role{api.RoleOperator, api.RoleAdmin}
	case admins:
		return []api.Role{api.RoleAdmin}
	}
	return nil
}

// principal is who asks, as the kernel, a client certificate, a token or a session says.
type principal struct {
	name    string // for logs: "uid 0", "cn:alice", "token:ci"
	client  string // common name of a certificate; "" on the unix socket
	role    api.Role
	tenant  string
	host    bool   // may speak for a host
	secret  string // of a token or a session, to ask again whether it still counts
	browser bool   // by a cookie: what changes something must come from our own pages
}

// caller gives who asks as the Service wants it.
func (who principal) caller() api.Caller {
	return api.Caller{Name: who.name, Role: who.role, Tenant: who.tenant}
}

// may reports whether who has the kind of access. What is not a role has none.
func (who principal) may(a access) bool {
	switch a {
	case public:
		return true
	case hosts:
		return who.host
	case anyone:
		return who.host || slices.Contains(a.roles(), who.role)
	}
	return slices.Contains(a.roles(), who.role)
}

// allowed checks who against a route.
func (who principal) allowed(rt *route) error {
	if !who.may(rt.access) {
		return who.refused(rt.access)
	}
	if rt.whole && who.tenant != "" {
		return api.NewProblem(http.StatusForbidden, "%s is of the tenant %s, and this is about all of them", who.name, who.tenant)
	}
	return nil
}

func (who principal) refused(a access) error {
	return api.NewProblem(http.StatusForbidden, "%s is not allowed to do this (it takes %s)", who.name, a)
}
