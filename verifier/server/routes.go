package server

import (
	"net/http"
	"slices"
	"time"

	"virt-attest/verifier/api"
)

// route is one thing that can be asked for.
type route struct {
	pattern string // of http.ServeMux
	access  access
	whole   bool          // about the machines of all tenants: not for who is of one
	body    int64         // bytes that a request may bring; 0: none
	bulk    bool          // carries evidence, logs or reference values
	takes   time.Duration // at most, from the request's body to its answer; 0: writeTimeout, forever: it paces itself
	status  int           // of success where it is neither 200 nor 204
	about   string        // what it does
	operation
}

// routes is the whole interface. What is not in it is not served, and the description of the interface
// (openapi.go) is made of it.
func (s *Server) routes() []route {
	return slices.Concat(s.serviceRoutes(), s.machineRoutes(), s.documentRoutes("rims", api.DocRIM), s.documentRoutes("policies", api.DocPolicy),
		s.watchRoutes(), s.secretRoutes(), s.adminRoutes(), s.hostRoutes())
}

// serviceRoutes are about the Verifier itself.
func (s *Server) serviceRoutes() []route {
	return []route{
		{pattern: "GET /healthz", access: anyone, about: "Is the process alive?", operation: ask(s.alive)},
		{pattern: "GET /readyz", access: anyone, takes: readyTimeout, about: "Does its database answer?", operation: ask(s.ready)},
		{pattern: "GET /metrics", access: viewers, whole: true, about: "Metrics for Prometheus", operation: own(api.TypeText, s.metrics)},
		{pattern: "GET /.well-known/jwks.json", access: public, about: "Keys that attestation results are signed with", operation: file(api.TypeJWKS, s.jwks)},
		{pattern: "GET /api/v1/jwks", access: public, about: "Keys that attestation results are signed with", operation: file(api.TypeJWKS, s.jwks)},
		{pattern: "GET /api/v1/version", access: anyone, about: "Who answers?", operation: ask(s.version)},
		{pattern: "GET /api/v1/openapi.json", access: anyone, about: "This description", operation: file(api.TypeJSON, s.description)},
		{pattern: "GET /api/v1/overview", access: viewers, about: "Machines by state, alerts, recent failures", operation: ask(s.overview)},
		{pattern: "GET /api/v1/topology", access: viewers, about: "Hosts with their VMs and the state of every link", operation: ask(s.topology)},
		{pattern: "GET /api/v1/stats", access: viewers, whole: true, about: "Time series for plots", operation: ask(s.stats)},
		{pattern: "GET /api/v1/replicas", access: viewers, whole: true, about: "Verifier processes on the same database", operation: ask(s.replicas)},
		{pattern: "GET /api/v1/jobs/{id}", access: readers, about: "Deferred work", operation: ask(s.job)},
	}
}

// machineRoutes are about hosts, VMs and their reports.
func (s *Server) machineRoutes() []route {
	const bulk = bulkWrite
	long := api.MaxTimeout + writeTimeout
	return []route{
		{pattern: "GET /api/v1/hosts", access: viewers, about: "List hosts", operation: ask(s.hosts)},
		{pattern: "GET /api/v1/hosts/{id}", access: viewers, about: "A host by ID or name", operation: ask(s.host)},
		{pattern: "POST /api/v1/hosts/{id}/approve", access: operators, whole: true, body: api.MaxRequest, about: "Accept a host's endorsement key", operation: ask(s.approve)},
		{pattern: "DELETE /api/v1/hosts/{id}", access: operators, whole: true, about: "Forget a host", operation: do(s.deleteHost)},
		{pattern: "GET /api/v1/enrolments", access: viewers, whole: true, about: "Hosts that wait for an approval", operation: ask(s.enrolments)},
		{pattern: "GET /api/v1/vms", access: readers, about: "List VMs", operation: ask(s.vms)},
		{pattern: "GET /api/v1/vms/{id}", access: readers, about: "A VM by UUID or name", operation: ask(s.vm)},
		{pattern: "DELETE /api/v1/vms/{id}", access: operators, about: "Forget a VM: vTPM, replay state, settings, results", operation: do(s.deleteVM)},
		{pattern: "GET /api/v1/vms/{id}/ear", access: readers, about: "The newest result as a signed token", operation: or[earAnswer](own(api.TypeEAR, s.ear), api.TypeJSON)},
		{pattern: "POST /api/v1/vms/{id}/direct", access: schedulers, body: api.MaxRequest, about: "Begin the attestation of a VM that the caller asks itself", operation: ask(s.direct)},
		{pattern: "POST /api/v1/vms/{id}/link", access: schedulers, body: api.MaxDirect, bulk: true, takes: long, about: "Bring what the VM has answered; get its link to its host", operation: ask(s.link)},
		{pattern: "GET /api/v1/identities", access: viewers, about: "VMs with their keys", operation: ask(s.identities)},
		{pattern: "POST /api/v1/gate", access: schedulers, body: api.MaxRequest, takes: long, about: "May this VM be used?", operation: ask(s.gate)},
		{pattern: "POST /api/v1/attest", access: schedulers, body: api.MaxRequest, takes: long, about: "Challenge a host now", operation: or[api.Report](own(api.TypeJSON, s.attest))},
		{pattern: "POST /api/v1/verify", access: viewers, whole: true, body: maxVerify, bulk: true, takes: bulk, about: "Judge evidence that the caller brings", operation: ask(s.verify)},

		{pattern: "GET /api/v1/reports/{id}", access: readers, about: "The outcome of a challenge, as it was made", operation: ask(s.report)},
		{pattern: "GET /api/v1/reports/{id}/evidence", access: viewers, takes: bulk, about: "A report's evidence with whole logs", operation: file(api.TypeCBOR, s.reportEvidence)},
		{pattern: "POST /api/v1/reports/{id}/verify", access: viewers, takes: bulk, about: "Compare a report with what its evidence gives now", operation: ask(s.reverify)},

		{pattern: "GET /api/v1/machines/{id}/settings", access: viewers, about: "Policy, reference values and tenant", operation: own(api.TypeJSON, s.settings).with(api.Settings{})},
		{pattern: "PUT /api/v1/machines/{id}/settings", access: operators, body: api.MaxRequest, about: "Set policy, reference values and tenant", operation: do(s.putSettings)},
		{pattern: "PUT /api/v1/machines/{id}/suspension", access: operators, whole: true, body: api.MaxRequest, about: "Take a machine out of the schedule", operation: ask(s.suspend)},
		{pattern: "DELETE /api/v1/machines/{id}/suspension", access: operators, whole: true, about: "Put it back into the schedule", operation: do(s.resume)},
		{pattern: "PUT /api/v1/machines/{id}/rim", access: operators, body: api.MaxRequest, about: "Set the reference values alone", operation: do(s.assign)},
		{pattern: "GET /api/v1/machines/{id}/history", access: viewers, about: "Changes of the verdict, newest first", operation: ask(s.history)},
		{pattern: "GET /api/v1/machines/{id}/reports", access: viewers, about: "Reports, newest first", operation: ask(s.reports)},
		{pattern: "GET /api/v1/machines/{id}/evidence", access: viewers, takes: bulk, about: "The newest evidence with whole logs", operation: file(api.TypeCBOR, s.machineEvidence)},
		{pattern: "GET /api/v1/machines/{id}/ima", access: viewers, takes: bulk, about: "The IMA log so far, as the kernel has it", operation: file(api.TypeBinary, s.machineIMA)},
		{pattern: "GET /api/v1/machines/{id}/ima-entries", access: viewers, about: "The IMA log with what reference values say", operation: ask(s.imaEntries)},
		{pattern: "GET /api/v1/machines/{id}/boot-log", access: viewers, takes: bulk, about: "The newest TCG event log, as the firmware has it", operation: file(api.TypeBinary, s.machineBootLog)},
		{pattern: "GET /api/v1/machines/{id}/boot-events", access: viewers, about: "The newest TCG event log", operation: ask(s.bootEvents)},
		{pattern: "GET /api/v1/machines/{id}/pcrs", access: viewers, about: "PCRs as quoted and as wanted", operation: ask(s.pcrs)},
		{pattern: "GET /api/v1/machines/{id}/identity", access: viewers, about: "Keys, and the binding to the host", operation: ask(s.identity)},
	}
}

// documentRoutes are about reference values or policies.
func (s *Server) documentRoutes(at string, k api.DocKind) []route {
	d, p := documents{s, k}, "/api/v1/"+at
	rts := []route{
		{pattern: "GET " + p, access: viewers, about: "List documents", operation: ask(d.list)},
		{pattern: "GET " + p + "/{name}", access: viewers, takes: bulkWrite, about: "A version as it was stored", operation: own(api.TypeBinary, d.get)},
		{pattern: "PUT " + p + "/{name}", access: operators, whole: true, body: api.MaxRIM, bulk: true, about: "Store a new version", operation: ask(d.put)},
		{pattern: "DELETE " + p + "/{name}", access: operators, whole: true, about: "Remove a document that no machine uses", operation: do(d.remove)},
		{pattern: "GET " + p + "/{name}/versions", access: viewers, about: "List versions, newest first", operation: ask(d.versions)},
		{pattern: "POST " + p + "/{name}/versions/{version}/activate", access: operators, whole: true, status: http.StatusAccepted, about: "Make a version the one that counts", operation: ask(d.activate)},
		{pattern: "POST " + p + "/{name}/versions/{version}/impact", access: operators, whole: true, status: http.StatusAccepted, about: "What would activating a version do?", operation: ask(d.impact)},
		{pattern: "GET " + p + "/{name}/diff", access: viewers, takes: bulkWrite, about: "Differences between two versions", operation: ask(d.diff)},
	}
	if k == api.DocRIM {
		rts = append(rts, route{pattern: "POST " + p + "/{name}/accept", access: operators, whole: true, body: api.MaxRequest, takes: bulkWrite,
			about: "Make a version that allows what a machine showed", operation: ask(s.accept)})
	}
	return rts
}

// watchRoutes tell what happens.
func (s *Server) watchRoutes() []route {
	const csv, json = "text/csv", api.TypeJSON
	return []route{
		{pattern: "GET /api/v1/events", access: viewers, takes: forever, about: "Events; as a stream by Accept: text/event-stream", operation: or[api.Batch[api.Event]](own(api.TypeEvents, s.events), api.TypeJSON)},
		{pattern: "GET /api/v1/alerts", access: viewers, about: "What needs an operator", operation: ask(s.alerts)},
		{pattern: "POST /api/v1/alerts/{id}/ack", access: operators, about: "Say that somebody knows", operation: ask(s.ack)},
		{pattern: "GET /api/v1/export/vms.csv", access: viewers, takes: forever, about: "All VMs as a table", operation: own(csv, s.exportVMs(asCSV))},
		{pattern: "GET /api/v1/export/vms.json", access: viewers, takes: forever, about: "All VMs", operation: own(json, s.exportVMs(asJSON))},
		{pattern: "GET /api/v1/export/hosts.csv", access: viewers, takes: forever, about: "All hosts as a table", operation: own(csv, s.exportHosts(asCSV))},
		{pattern: "GET /api/v1/export/hosts.json", access: viewers, takes: forever, about: "All hosts", operation: own(json, s.exportHosts(asJSON))},
		{pattern: "GET /api/v1/export/events.csv", access: viewers, takes: forever, about: "All events as a table", operation: own(csv, s.exportEvents(asCSV))},
		{pattern: "GET /api/v1/export/events.json", access: viewers, takes: forever, about: "All events", operation: own(json, s.exportEvents(asJSON))},
	}
}

// secretRoutes are about secrets for VMs.
func (s *Server) secretRoutes() []route {
	return []route{
		{pattern: "GET /api/v1/secrets", access: operators, about: "List secrets without their values", operation: ask(s.secrets)},
		{pattern: "PUT /api/v1/secrets/{name}", access: operators, body: api.MaxRequest, about: "Store a secret for VMs", operation: do(s.putSecret)},
		{pattern: "DELETE /api/v1/secrets/{name}", access: operators, about: "Forget a secret", operation: do(s.deleteSecret)},
		{pattern: "PUT /api/v1/secrets/{name}/vms/{vm}", access: operators, about: "Release a secret to a VM when it is TRUSTED", operation: do(s.assignSecret)},
		{pattern: "DELETE /api/v1/secrets/{name}/vms/{vm}", access: operators, about: "Release it to this VM no more", operation: do(s.unassignSecret)},
	}
}

// adminRoutes are about who may do what, and what was done.
func (s *Server) adminRoutes() []route {
	const made = http.StatusCreated
	return []route{
		{pattern: "GET /api/v1/webhooks", access: admins, about: "Who is told of events", operation: ask(s.webhooks)},
		{pattern: "POST /api/v1/webhooks", access: admins, body: api.MaxRequest, status: made, about: "Tell somebody of events", operation: ask(s.newWebhook)},
		{pattern: "PUT /api/v1/webhooks/{id}", access: admins, body: api.MaxRequest, about: "Change a webhook", operation: ask(s.putWebhook)},
		{pattern: "DELETE /api/v1/webhooks/{id}", access: admins, about: "Remove a webhook", operation: do(s.deleteWebhook)},
		{pattern: "POST /api/v1/webhooks/{id}/test", access: admins, takes: 2 * writeTimeout, about: "Send one event now", operation: ask(s.testWebhook)},
		{pattern: "GET /api/v1/audit", access: admins, whole: true, about: "The audit log, newest first", operation: ask(s.audit)},
		{pattern: "GET /api/v1/audit/verify", access: admins, whole: true, takes: bulkWrite, about: "Check the audit log's chain", operation: ask(s.checkAudit)},
		{pattern: "GET /api/v1/audit/export", access: admins, whole: true, takes: forever, about: "The audit log as JSON lines, oldest first", operation: own(api.TypeLines, s.exportAudit)},
		{pattern: "GET /api/v1/tokens", access: admins, about: "List bearer tokens", operation: ask(s.tokens)},
		{pattern: "POST /api/v1/tokens", access: admins, body: api.MaxRequest, status: made, about: "Make a bearer token, or a login token", operation: ask(s.newToken)},
		{pattern: "DELETE /api/v1/tokens/{id}", access: admins, about: "Take a token's right away", operation: do(s.deleteToken)},
		{pattern: "GET /api/v1/enrol-tokens", access: admins, whole: true, about: "List enrolment tokens", operation: ask(s.enrolTokens)},
		{pattern: "POST /api/v1/enrol-tokens", access: admins, whole: true, body: api.MaxRequest, status: made, about: "Make a token that admits one host", operation: ask(s.newEnrolToken)},
		{pattern: "DELETE /api/v1/enrol-tokens/{id}", access: admins, whole: true, about: "Remove an enrolment token", operation: do(s.deleteEnrolToken)},
	}
}

// hostRoutes are for hostd.
func (s *Server) hostRoutes() []route {
	return []route{
		{pattern: "POST /api/v1/host/hello", access: hosts, body: api.MaxHello, about: "A host introduces itself", operation: askCBOR(s.hello)},
		{pattern: "GET /api/v1/host/challenges", access: hosts, takes: api.MaxWait + writeTimeout, about: "Wait for challenges", operation: own(api.TypeCBOR, s.poll).with(api.Poll{})},
		{pattern: "POST /api/v1/host/challenge", access: hosts, body: api.MaxRequest, about: "Ask for a challenge", operation: askCBOR(s.challenge)},
		{pattern: "POST /api/v1/host/evidence", access: hosts, body: s.conf.Limits.Evidence, bulk: true, takes: api.MaxTimeout, about: "Answer a challenge", operation: askCBOR(s.evidence)},
		{pattern: "POST /api/v1/host/activated", access: hosts, body: api.MaxRequest, about: "Return the contents of credentials", operation: do(s.activated)},
		{pattern: "POST /api/v1/host/rules", access: hosts, body: api.MaxRequest, about: "What to do to VMs by their verdicts", operation: askCBOR(s.rules)},
		{pattern: "POST /api/v1/host/acted", access: hosts, body: api.MaxRequest, about: "Tell what was done to VMs", operation: do(s.acted)},
		{pattern: "POST /api/v1/host/release", access: hosts, body: api.MaxRequest, about: "Get a TRUSTED VM's secrets, sealed to its vTPM", operation: askCBOR(s.release)},
	}
}
