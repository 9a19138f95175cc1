package server

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"slices"

	"virt-attest/verifier/api"
	"virt-attest/verifier/engine"
)

// bridge makes a Backend of the Engine as it is: what the Engine does not do yet is unavailable.
type bridge struct{ *engine.Engine }

func missing() error {
	return api.NewProblem(http.StatusNotImplemented, "this Verifier cannot do that")
}

// part gives a page of a list that is there as a whole.
func part[T any](all []T, p api.Page) (*api.List[T], error) {
	if p.Cursor != "" {
		return nil, api.NewProblem(http.StatusBadRequest, "the cursor is not one of this list")
	}
	return &api.List[T]{Items: all, Total: len(all)}, nil
}

func (b bridge) Hosts(ctx context.Context, _ api.Caller, _ api.MachineFilter, p api.Page) (*api.List[api.Host], error) {
	all, err := b.Engine.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	return part(all, p)
}

func (b bridge) Host(ctx context.Context, _ api.Caller, name string) (*api.Host, error) {
	all, err := b.Engine.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(h api.Host) bool { return h.ID == name || h.Name == name })
	if i < 0 {
		return nil, api.NewProblem(http.StatusNotFound, "no host %q", name)
	}
	return &all[i], nil
}

func (b bridge) ApproveHost(ctx context.Context, _ api.Caller, id string, a api.Approve) (*api.Host, error) {
	return b.Approve(ctx, id, &a)
}

func (b bridge) DeleteHost(ctx context.Context, _ api.Caller, id string) error {
	return b.Engine.DeleteHost(ctx, id)
}

func (b bridge) VMs(ctx context.Context, _ api.Caller, _ api.MachineFilter, p api.Page) (*api.List[api.VM], error) {
	all, err := b.Engine.VMs(ctx)
	if err != nil {
		return nil, err
	}
	return part(all, p)
}

func (b bridge) VM(ctx context.Context, _ api.Caller, name string) (*api.VM, error) {
	all, err := b.Engine.VMs(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(v api.VM) bool { return v.UUID.String() == name || v.Name == name })
	if i < 0 {
		return nil, api.NewProblem(http.StatusNotFound, "no VM %q", name)
	}
	return &all[i], nil
}

func (b bridge) DeleteVM(ctx context.Context, _ api.Caller, uuid string) error {
	return b.Engine.DeleteVM(ctx, uuid)
}

func (b bridge) Settings(context.Context, api.Caller, string) (*api.Settings, error) {
	return &api.Settings{}, nil
}

func (b bridge) PutSettings(ctx context.Context, _ api.Caller, machine string, s api.Settings) error {
	return b.Assign(ctx, machine, &api.Assign{RIMs: s.RIMs})
}

func (b bridge) Report(ctx context.Context, _ api.Caller, id string) (*api.Report, error) {
	return b.Engine.Report(ctx, id)
}

func (b bridge) ReportEvidence(ctx context.Context, _ api.Caller, id string) ([]byte, error) {
	return b.Engine.ReportEvidence(ctx, id)
}

func (b bridge) MachineEvidence(ctx context.Context, _ api.Caller, id string) ([]byte, error) {
	return b.Engine.MachineEvidence(ctx, id)
}

func (b bridge) MachineIMA(ctx context.Context, _ api.Caller, id string) ([]byte, error) {
	return b.Engine.MachineIMA(ctx, id)
}

func (b bridge) Documents(ctx context.Context, _ api.Caller, k api.DocKind) ([]api.Document, error) {
	if k != api.DocRIM {
		return nil, missing()
	}
	all, err := b.RIMs(ctx)
	out := make([]api.Document, len(all))
	for i, r := range all {
		out[i] = api.Document{Kind: k, Name: r.Name, Active: 1, Versions: 1, SHA256: r.SHA256, Files: r.Files, Modified: r.Modified, Assigned: r.Assigned, Machines: len(r.Assigned)}
	}
	return out, err
}

func (b bridge) Document(ctx context.Context, _ api.Caller, k api.DocKind, name string, _ int) ([]byte, *api.DocVersion, error) {
	if k != api.DocRIM {
		return nil, nil, missing()
	}
	f, err := b.RIM(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return f, only(f), nil
}

// only is the version of a document that has one.
func only(content []byte) *api.DocVersion {
	sum := sha256.Sum256(content)
	return &api.DocVersion{Version: 1, SHA256: hex.EncodeToString(sum[:]), Size: len(content), Active: true}
}

func (b bridge) PutDocument(ctx context.Context, _ api.Caller, k api.DocKind, name string, d api.DocPut) (*api.DocVersion, error) {
	if k != api.DocRIM || !d.Activate {
		return nil, missing()
	}
	return only(d.Content), b.PutRIM(ctx, name, d.Content)
}

func (b bridge) DeleteDocument(ctx context.Context, _ api.Caller, k api.DocKind, name string) error {
	if k != api.DocRIM {
		return missing()
	}
	return b.DeleteRIM(ctx, name)
}

func (b bridge) Overview(context.Context, api.Caller) (*api.Overview, error) {
	return nil, missing()
}

func (b bridge) Topology(context.Context, api.Caller) (*api.Topology, error) {
	return nil, missing()
}

func (b bridge) Stats(context.Context, api.Caller, int, int) (*api.Stats, error) {
	return nil, missing()
}

func (b bridge) Gate(context.Context, api.Caller, api.GateRequest) (*api.Gate, error) {
	return nil, missing()
}

func (b bridge) EAR(context.Context, api.Caller, string, string) (string, error) {
	return "", missing()
}

func (b bridge) JWKS(context.Context) ([]byte, error) {
	return nil, missing()
}

func (b bridge) Verify(context.Context, api.Caller, api.VerifyRequest) (*api.Report, error) {
	return nil, missing()
}

func (b bridge) Reverify(context.Context, api.Caller, string) (*api.Reverified, error) {
	return nil, missing()
}

func (b bridge) Reports(context.Context, api.Caller, string, api.Page) (*api.List[api.ReportInfo], error) {
	return nil, missing()
}

func (b bridge) MachineBootLog(context.Context, api.Caller, string) ([]byte, error) {
	return nil, missing()
}

func (b bridge) IMAEntries(context.Context, api.Caller, string, api.IMAFilter) (*api.List[api.IMAEntry], error) {
	return nil, missing()
}

func (b bridge) BootEvents(context.Context, api.Caller, string) ([]api.BootEvent, error) {
	return nil, missing()
}

func (b bridge) PCRs(context.Context, api.Caller, string) ([]api.PCRState, error) {
	return nil, missing()
}

func (b bridge) Identity(context.Context, api.Caller, string) (*api.Identity, error) {
	return nil, missing()
}

func (b bridge) Identities(context.Context, api.Caller, api.Page) (*api.List[api.Identity], error) {
	return nil, missing()
}

func (b bridge) DocVersions(context.Context, api.Caller, api.DocKind, string) ([]api.DocVersion, error) {
	return nil, missing()
}

func (b bridge) DocDiff(context.Context, api.Caller, api.DocKind, string, int, int) ([]api.DocChange, error) {
	return nil, missing()
}

func (b bridge) Activate(context.Context, api.Caller, api.DocKind, string, int) (*api.Job, error) {
	return nil, missing()
}

func (b bridge) Impact(context.Context, api.Caller, api.DocKind, string, int) (*api.Job, error) {
	return nil, nil
}

func (b bridge) Accept(context.Context, api.Caller, string, api.AcceptRequest) (*api.Accepted, error) {
	return nil, missing()
}

func (b bridge) Events(context.Context, api.Caller, api.EventFilter) ([]api.Event, error) {
	return nil, missing()
}

func (b bridge) Follow(context.Context, api.Caller, api.EventFilter, func(api.Event) error) error {
	return nil
}

func (b bridge) Alerts(context.Context, api.Caller, bool) ([]api.Alert, error) {
	return nil, missing()
}

func (b bridge) AckAlert(context.Context, api.Caller, int64) (*api.Alert, error) {
	return nil, missing()
}

func (b bridge) Webhooks(context.Context, api.Caller) ([]api.Webhook, error) {
	return nil, missing()
}

func (b bridge) PutWebhook(context.Context, api.Caller, api.Webhook) (*api.Webhook, error) {
	return nil, missing()
}

func (b bridge) DeleteWebhook(context.Context, api.Caller, string) error {
	return missing()
}

func (b bridge) TestWebhook(context.Context, api.Caller, string) (*api.Webhook, error) {
	return nil, missing()
}

func (b bridge) Audit(context.Context, api.Caller, int64, int) ([]api.AuditEntry, error) {
	return nil, missing()
}

func (b bridge) CheckAudit(context.Context, api.Caller) (*api.AuditCheck, error) {
	return nil, missing()
}

func (b bridge) ExportAudit(context.Context, api.Caller, io.Writer) error {
	return missing()
}

func (b bridge) Tokens(context.Context, api.Caller) ([]api.Token, error) {
	return nil, missing()
}

func (b bridge) NewToken(context.Context, api.Caller, api.TokenRequest) (*api.Token, error) {
	return nil, missing()
}

func (b bridge) DeleteToken(context.Context, api.Caller, string) error {
	return missing()
}

func (b bridge) Authenticate(context.Context, string) (api.Caller, error) {
	return api.Caller{}, missing()
}

func (b bridge) Login(context.Context, string) (string, api.Caller, error) {
	return "", api.Caller{}, missing()
}

func (b bridge) Logout(context.Context, string) error {
	return missing()
}

func (b bridge) EnrolTokens(context.Context, api.Caller) ([]api.EnrolToken, error) {
	return nil, missing()
}

func (b bridge) NewEnrolToken(context.Context, api.Caller, string, float64) (*api.EnrolToken, error) {
	return nil, missing()
}

func (b bridge) DeleteEnrolToken(context.Context, api.Caller, string) error {
	return missing()
}

func (b bridge) Job(context.Context, api.Caller, string) (*api.Job, error) {
	return nil, missing()
}

func (b bridge) Replicas(context.Context, api.Caller) ([]api.Replica, error) {
	return nil, missing()
}
