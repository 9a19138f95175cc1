package web

import (
	"slices"

	"virt-attest/verifier/api"
)

// access is who may make a request.
type access int

const (
	viewers   access = iota // who may read everything of their tenant
	readers                 // also schedulers: VMs only
	attesters               // who may ask for attestations
	operators
	admins
	anyone // also nobody
)

// has says whether who is among those. What is not a role has nothing.
func (a access) has(who api.Caller) bool {
	roles := map[access][]api.Role{
		viewers:   {api.RoleViewer, api.RoleOperator, api.RoleAdmin},
		readers:   {api.RoleViewer, api.RoleScheduler, api.RoleOperator, api.RoleAdmin},
		attesters: {api.RoleScheduler, api.RoleOperator, api.RoleAdmin},
		operators: {api.RoleOperator, api.RoleAdmin},
		admins:    {api.RoleAdmin},
	}[a]
	return slices.Contains(roles, who.Role)
}

// route is one path, who may ask for it, and what answers.
type route struct {
	pattern string
	access  access
	handle  func(*call) error
	upload  int64 // bytes of a form; 0: maxForm
}

func (u *ui) routes() []route {
	return slices.Concat(u.machineRoutes(), u.documentRoutes(), []route{
		{"GET /{$}", readers, (*call).overview, 0},
		{"GET /search", readers, (*call).search, 0},
		{"GET /topology", viewers, (*call).topology, 0},
		{"GET /alerts", viewers, (*call).alerts, 0},
		{"POST /alerts/{id}/ack", operators, (*call).ackAlert, 0},
		{"GET /events", viewers, (*call).events, 0},
		{"GET /webhooks", admins, (*call).webhooks, 0},
		{"POST /webhooks", admins, (*call).newWebhook, 0},
		{"POST /webhooks/{id}/test", admins, (*call).testWebhook, 0},
		{"POST /webhooks/{id}/delete", admins, (*call).deleteWebhook, 0},
		{"GET /audit", admins, (*call).audit, 0},
		{"GET /audit/export", admins, (*call).exportAudit, 0},
		{"GET /performance", viewers, (*call).performance, 0},
		{"GET /performance/{file}", viewers, (*call).plotFile, 0},
		{"GET /settings", viewers, (*call).settings, 0},
		{"POST /settings/tokens", admins, (*call).newToken, 0},
		{"POST /settings/tokens/{id}/delete", admins, (*call).deleteToken, 0},
		{"POST /settings/enrol", admins, (*call).newEnrolToken, 0},
		{"POST /settings/enrol/{id}/delete", admins, (*call).deleteEnrolToken, 0},
		{"GET /jobs", attesters, (*call).jobs, 0},
		{"GET /help/api", readers, (*call).apiHelp, 0},
		{"GET /help/reasons", readers, (*call).reasonsHelp, 0},
		{"GET /login", anyone, (*call).loginPage, 0},
		{"POST /theme", anyone, (*call).setTheme, 0},
		{"GET /", readers, (*call).nothing, 0},
	})
}

// machineRoutes are those of VMs and hosts, whose pages have the same parts.
func (u *ui) machineRoutes() []route {
	rts := []route{
		{"GET /vms", readers, (*call).vms, 0},
		{"POST /vms/attest", attesters, (*call).attestMany, 0},
		{"GET /hosts", viewers, (*call).hosts, 0},
		{"POST /hosts/{id}/approve", operators, (*call).approve, 0},
		{"GET /reports/{id}", viewers, (*call).report, 0},
		{"GET /reports/{id}/evidence", viewers, (*call).reportEvidence, 0},
		{"GET /reports/{id}/json", viewers, (*call).reportJSON, 0},
		{"POST /reports/{id}/reverify", operators, (*call).reverify, 0},
		{"POST /machines/{id}/accept", operators, (*call).accept, 0},
		{"GET /machines/{id}/{file}", viewers, (*call).machineFile, 0},
	}
	for _, kind := range []string{"vms", "hosts"} {
		see := readers
		if kind == "hosts" {
			see = viewers
		}
		rts = append(rts,
			route{"GET /" + kind + "/{id}", see, (*call).machine, 0},
			route{"GET /" + kind + "/{id}/{tab}", viewers, (*call).machine, 0},
			route{"POST /" + kind + "/{id}/attest", attesters, (*call).attestOne, 0},
			route{"POST /" + kind + "/{id}/settings", operators, (*call).putSettings, 0},
			route{"POST /" + kind + "/{id}/suspend", operators, (*call).suspend, 0},
			route{"POST /" + kind + "/{id}/resume", operators, (*call).resume, 0},
			route{"POST /" + kind + "/{id}/delete", operators, (*call).deleteMachine, 0})
	}
	return rts
}

// documentRoutes are those of reference values and policies, which are versioned the same way.
func (u *ui) documentRoutes() []route {
	var rts []route
	for _, kind := range []string{"rims", "policies"} {
		p := "/" + kind
		rts = append(rts,
			route{"GET " + p, viewers, (*call).documents, 0},
			route{"POST " + p, operators, (*call).putDocument, api.MaxRIM + maxForm},
			route{"GET " + p + "/{name}", viewers, (*call).document, 0},
			route{"GET " + p + "/{name}/edit", operators, (*call).editDocument, 0},
			route{"GET " + p + "/{name}/raw", viewers, (*call).rawDocument, 0},
			route{"POST " + p + "/{name}/activate", operators, (*call).activate, 0},
			route{"POST " + p + "/{name}/impact", operators, (*call).impact, 0},
			route{"POST " + p + "/{name}/delete", operators, (*call).deleteDocument, 0})
	}
	return rts
}
