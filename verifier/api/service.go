package api

import (
	"context"
	"io"

	"virt-attest/attest"
)

// Service is what the Verifier does for people and programs, apart from how they reach it. The REST
// interface and the web page are made of it; verifier/engine implements it. Every method takes who
// asks: a Caller with a tenant sees and touches the VMs of that tenant only (others are not found), and
// of hosts their ID, name and state. Roles are checked before. What changes something is in the audit
// log. Errors are engine's answers; anything else is a fault of the Verifier.
//
// A machine is named by a VM's UUID or a host's ID; where a parameter is called name, a name does too
// if only one machine has it.
type Service interface {
	Ready(ctx context.Context) error
	Overview(ctx context.Context, who Caller) (*Overview, error)
	Topology(ctx context.Context, who Caller) (*Topology, error)
	Stats(ctx context.Context, who Caller, seconds, steps int) (*Stats, error)

	Hosts(ctx context.Context, who Caller, f MachineFilter, p Page) (*List[Host], error)
	Host(ctx context.Context, who Caller, name string) (*Host, error)
	ApproveHost(ctx context.Context, who Caller, id string, a Approve) (*Host, error)
	DeleteHost(ctx context.Context, who Caller, id string) error
	VMs(ctx context.Context, who Caller, f MachineFilter, p Page) (*List[VM], error)
	VM(ctx context.Context, who Caller, name string) (*VM, error)
	DeleteVM(ctx context.Context, who Caller, uuid string) error
	Settings(ctx context.Context, who Caller, machine string) (*Settings, error)
	PutSettings(ctx context.Context, who Caller, machine string, s Settings) error
	// ChangeSettings puts what change makes of a machine's settings in their place. Where somebody else is faster, change is called again. Its error is
	// the answer, and then nothing is changed.
	ChangeSettings(ctx context.Context, who Caller, machine string, change func(Settings) (Settings, error)) error
	Suspend(ctx context.Context, who Caller, machine string, r SuspendRequest) (*Suspension, error)
	Resume(ctx context.Context, who Caller, machine string) error

	Attest(ctx context.Context, who Caller, r AttestRequest) (*Report, error)
	AttestAsync(ctx context.Context, who Caller, r AttestRequest) (*Job, error) // the job's ID is the report's
	// AttestOnce is AttestAsync; the same caller's same request with the same key gets the same job for ten minutes, at whatever replica.
	AttestOnce(ctx context.Context, who Caller, key string, r AttestRequest) (*Job, error)
	Direct(ctx context.Context, who Caller, vm string, r DirectRequest) (*DirectChallenge, error)
	Link(ctx context.Context, who Caller, vm string, r LinkRequest) (*Link, error)
	Gate(ctx context.Context, who Caller, r GateRequest) (*Gate, error)
	EAR(ctx context.Context, who Caller, vm, nonce string) (string, error)
	JWKS(ctx context.Context) ([]byte, error)
	Verify(ctx context.Context, who Caller, r VerifyRequest) (*Report, error)

	Report(ctx context.Context, who Caller, id string) (*Report, error)
	ReportEvidence(ctx context.Context, who Caller, id string) ([]byte, error)
	Reverify(ctx context.Context, who Caller, report string) (*Reverified, error)
	Reports(ctx context.Context, who Caller, machine string, p Page) (*List[ReportInfo], error)

	MachineEvidence(ctx context.Context, who Caller, machine string) ([]byte, error)
	MachineIMA(ctx context.Context, who Caller, machine string) ([]byte, error)
	MachineBootLog(ctx context.Context, who Caller, machine string) ([]byte, error)
	IMAEntries(ctx context.Context, who Caller, machine string, f IMAFilter) (*List[IMAEntry], error)
	BootEvents(ctx context.Context, who Caller, machine string) ([]BootEvent, error)
	PCRs(ctx context.Context, who Caller, machine string) ([]PCRState, error)
	Identity(ctx context.Context, who Caller, machine string) (*Identity, error)
	Identities(ctx context.Context, who Caller, p Page) (*List[Identity], error) // of VMs: UUID with EK and AK (swtpm#722)

	Documents(ctx context.Context, who Caller, k DocKind) ([]Document, error)
	Document(ctx context.Context, who Caller, k DocKind, name string, version int) ([]byte, *DocVersion, error) // 0: the active one
	PutDocument(ctx context.Context, who Caller, k DocKind, name string, d DocPut) (*DocVersion, error)
	DeleteDocument(ctx context.Context, who Caller, k DocKind, name string) error
	DocVersions(ctx context.Context, who Caller, k DocKind, name string) ([]DocVersion, error)
	DocDiff(ctx context.Context, who Caller, k DocKind, name string, from, to int) ([]DocChange, error)
	Activate(ctx context.Context, who Caller, k DocKind, name string, version int) (*Job, error) // re-appraises
	Impact(ctx context.Context, who Caller, k DocKind, name string, version int) (*Job, error)   // its result is an Impact
	Accept(ctx context.Context, who Caller, rim string, r AcceptRequest) (*Accepted, error)

	Events(ctx context.Context, who Caller, f EventFilter) ([]Event, error)
	// Follow calls f with each event after f.After, until ctx ends or f fails.
	Follow(ctx context.Context, who Caller, filter EventFilter, f func(Event) error) error
	Alerts(ctx context.Context, who Caller, all bool) ([]Alert, error)
	AckAlert(ctx context.Context, who Caller, id int64) (*Alert, error)

	Webhooks(ctx context.Context, who Caller) ([]Webhook, error)
	PutWebhook(ctx context.Context, who Caller, w Webhook) (*Webhook, error) // new without an ID
	DeleteWebhook(ctx context.Context, who Caller, id string) error
	TestWebhook(ctx context.Context, who Caller, id string) (*Webhook, error) // sends one event now

	Audit(ctx context.Context, who Caller, before int64, limit int) ([]AuditEntry, error) // newest first; before 0: from the end
	CheckAudit(ctx context.Context, who Caller) (*AuditCheck, error)
	ExportAudit(ctx context.Context, who Caller, w io.Writer) error // JSON lines, oldest first

	Tokens(ctx context.Context, who Caller) ([]Token, error)
	NewToken(ctx context.Context, who Caller, r TokenRequest) (*Token, error)
	DeleteToken(ctx context.Context, who Caller, id string) error
	// Authenticate gives who holds a secret: a bearer token's, or a browser session's.
	Authenticate(ctx context.Context, secret string) (Caller, error)
	Login(ctx context.Context, secret string) (session string, who Caller, err error) // a login token is used up
	Logout(ctx context.Context, session string) error

	EnrolTokens(ctx context.Context, who Caller) ([]EnrolToken, error)
	NewEnrolToken(ctx context.Context, who Caller, name string, ttl float64) (*EnrolToken, error)
	DeleteEnrolToken(ctx context.Context, who Caller, id string) error

	// Secrets for VMs. Their values never come back.
	Secrets(ctx context.Context, who Caller) ([]Secret, error)
	PutSecret(ctx context.Context, who Caller, name string, s SecretPut) error
	DeleteSecret(ctx context.Context, who Caller, name, tenant string) error
	AssignSecret(ctx context.Context, who Caller, name, tenant, vm string, on bool) error

	Job(ctx context.Context, who Caller, id string) (*Job, error)
	Replicas(ctx context.Context, who Caller) ([]Replica, error)
}

// HostService is what the Verifier does for hosts. client is the common name of the host's certificate, "" on
// the unix socket.
type HostService interface {
	Hello(ctx context.Context, client string, h *HostHello) (*HostWelcome, error)
	// Poll waits until there is a challenge or a verdict for the host. Where the answer cannot be delivered, failed
	// puts the challenges back for the next poll; it is not nil unless there is an error.
	Poll(ctx context.Context, client string, r PollRequest) (poll *Poll, failed func(), err error)
	// Challenge makes a challenge that the host itself asked for, as its schedule says or because something happened there.
	Challenge(ctx context.Context, client string, r ChallengeRequest) (*attest.Challenge, error)
	Evidence(ctx context.Context, client string, encoded []byte) (*EvidenceReply, error)
	Activated(ctx context.Context, client string, a *Activated) error

	// Rules gives what a host shall do by verdicts, Acted notes what it did, Release gives a TRUSTED VM's secrets.
	Rules(ctx context.Context, client string, r *RulesRequest) (*Rules, error)
	Acted(ctx context.Context, client string, a *Acted) error
	Release(ctx context.Context, client string, r *ReleaseRequest) (*Release, error)
}
