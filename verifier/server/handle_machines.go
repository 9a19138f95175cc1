package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

type pageIn struct {
	Cursor string `query:"cursor" doc:"next of the part before"`
	Limit  int    `query:"limit" doc:"items of a part, at most 1000; 0: 100"`
}

func (p pageIn) page() (api.Page, error) {
	if p.Limit > api.MaxPageSize {
		return api.Page{}, api.NewProblem(http.StatusBadRequest, "limit is at most %d", api.MaxPageSize)
	}
	return api.Page{Cursor: p.Cursor, Limit: p.Limit}, nil
}

type filterIn struct {
	State  []appraise.State `query:"state" doc:"states, between commas" one:"TRUSTED,UNTRUSTED,STALE,PENDING,UNCONFIGURED,UNREACHABLE,ROLLBACK,ERROR"`
	Host   string           `query:"host" doc:"ID or name of a host"`
	Tenant string           `query:"tenant" doc:"of VMs"`
	Text   string           `query:"text" doc:"part of the name, or beginning of the UUID or ID"`
}

func (f filterIn) filter() api.MachineFilter {
	return api.MachineFilter{States: f.State, Host: f.Host, Tenant: f.Tenant, Text: f.Text}
}

type machinesIn struct {
	filterIn
	pageIn
}

type machinePage struct {
	byID
	pageIn
}

func (s *Server) hosts(c *call, in *machinesIn) (*api.List[api.Host], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	return s.svc.Hosts(c.r.Context(), c.who.caller(), in.filter(), p)
}

func (s *Server) host(c *call, in *byID) (*api.Host, error) {
	return s.svc.Host(c.r.Context(), c.who.caller(), in.ID)
}

type approveIn struct {
	byID
	Body api.Approve
}

func (s *Server) approve(c *call, in *approveIn) (*api.Host, error) {
	return s.svc.ApproveHost(c.r.Context(), c.who.caller(), in.ID, in.Body)
}

func (s *Server) deleteHost(c *call, in *byID) error {
	return s.svc.DeleteHost(c.r.Context(), c.who.caller(), in.ID)
}

// enrolments gives the hosts that nobody has approved: all of them are PENDING.
func (s *Server) enrolments(c *call, _ *none) (*api.List[api.Host], error) {
	out := []api.Host{}
	p := api.Page{Limit: api.MaxPageSize}
	for len(out) < maxEnrolments {
		l, err := s.svc.Hosts(c.r.Context(), c.who.caller(), api.MachineFilter{States: []appraise.State{appraise.Pending}}, p)
		if err != nil {
			return nil, err
		}
		out = append(out, slices.DeleteFunc(l.Items, func(h api.Host) bool { return h.Approved })...)
		if p.Cursor = l.Next; p.Cursor == "" {
			break
		}
	}
	return listed(out, nil)
}

func (s *Server) vms(c *call, in *machinesIn) (*api.List[api.VM], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	return s.svc.VMs(c.r.Context(), c.who.caller(), in.filter(), p)
}

func (s *Server) vm(c *call, in *byID) (*api.VM, error) {
	return s.svc.VM(c.r.Context(), c.who.caller(), in.ID)
}

func (s *Server) deleteVM(c *call, in *byID) error {
	return s.svc.DeleteVM(c.r.Context(), c.who.caller(), in.ID)
}

type earIn struct {
	byID
	Nonce string `query:"nonce" doc:"the relying party's own, 8 to 88 characters"`
}

// earAnswer is an EAR within JSON.
type earAnswer struct {
	EAR string `json:"ear"`
}

func (s *Server) ear(c *call, in *earIn) error {
	if n := len(in.Nonce); n > 0 && (n < 8 || n > 88) {
		return api.NewProblem(http.StatusBadRequest, "a nonce has 8 to 88 characters")
	}
	ear, err := s.svc.EAR(c.r.Context(), c.who.caller(), in.ID, in.Nonce)
	if err != nil {
		return err
	}
	c.w.Header().Set("Vary", "Accept")
	if prefers(c.r, api.TypeJSON, api.TypeEAR) {
		return c.json(earAnswer{ear})
	}
	return c.send(api.TypeEAR, []byte(ear))
}

// prefers reports whether a request accepts kind and does not name other. What it says about quality is not looked at.
func prefers(r *http.Request, kind, other string) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	return strings.Contains(accept, kind) && !strings.Contains(accept, other)
}

func (s *Server) identities(c *call, in *pageIn) (*api.List[api.Identity], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	return s.svc.Identities(c.r.Context(), c.who.caller(), p)
}

type gateIn struct{ Body api.GateRequest }

func (s *Server) gate(c *call, in *gateIn) (*api.Gate, error) {
	return s.svc.Gate(c.r.Context(), c.who.caller(), in.Body)
}

type attestIn struct {
	Async bool   `query:"async" doc:"answer with a job at once"`
	Key   string `header:"Idempotency-Key" doc:"with async: a request that comes again gets the same job"`
	Body  api.AttestRequest
}

func (s *Server) attest(c *call, in *attestIn) error {
	if !in.Async {
		r, err := s.svc.Attest(c.r.Context(), c.who.caller(), in.Body)
		if err != nil {
			return err
		}
		return c.json(r)
	}
	j, err := s.attestOnce(c, in)
	if err != nil {
		return err
	}
	c.accepted(j)
	return c.json(j)
}

func (s *Server) attestOnce(c *call, in *attestIn) (*api.Job, error) {
	ctx, who := c.r.Context(), c.who.caller()
	switch {
	case in.Key == "":
		return s.svc.AttestAsync(ctx, who, in.Body)
	case len(in.Key) > maxKey:
		return nil, api.NewProblem(http.StatusBadRequest, "Idempotency-Key has more than %d characters", maxKey)
	}
	return s.svc.AttestOnce(ctx, who, in.Key, in.Body)
}

type verifyIn struct{ Body api.VerifyRequest }

func (s *Server) verify(c *call, in *verifyIn) (*api.Report, error) {
	return s.svc.Verify(c.r.Context(), c.who.caller(), in.Body)
}

func (s *Server) report(c *call, in *byID) (*api.Report, error) {
	return s.svc.Report(c.r.Context(), c.who.caller(), in.ID)
}

func (s *Server) reportEvidence(c *call, in *byID) ([]byte, error) {
	return s.svc.ReportEvidence(c.r.Context(), c.who.caller(), in.ID)
}

func (s *Server) reverify(c *call, in *byID) (*api.Reverified, error) {
	return s.svc.Reverify(c.r.Context(), c.who.caller(), in.ID)
}

type ifNoneMatch struct {
	Have string `header:"If-None-Match" doc:"ETag of what the caller has"`
}

type settingsIn struct {
	byID
	ifNoneMatch
}

func (s *Server) settings(c *call, in *settingsIn) error {
	v, err := s.svc.Settings(c.r.Context(), c.who.caller(), in.ID)
	if err != nil {
		return err
	}
	tag, err := tagOf(v)
	if err != nil {
		return err
	}
	if c.unchanged(tag, in.Have) {
		return nil
	}
	return c.json(v)
}

// tagOf gives the ETag of settings.
func tagOf(v *api.Settings) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return quoted(hex.EncodeToString(sum[:])), nil
}

func quoted(s string) string { return strconv.Quote(s) }

// unchanged sets the answer's ETag, and answers 304 where the caller has it.
func (c *call) unchanged(tag, have string) bool {
	c.w.Header().Set("ETag", tag)
	c.w.Header().Set("Cache-Control", "private, no-cache")
	if have != "*" && !matches(have, tag) {
		return false
	}
	c.w.WriteHeader(http.StatusNotModified)
	return true
}

// matches looks for a tag in a header's list of them.
func matches(list, tag string) bool {
	for t := range strings.SplitSeq(list, ",") {
		if strings.TrimPrefix(strings.TrimSpace(t), "W/") == tag {
			return true
		}
	}
	return false
}

// changed refuses a change of what is not any more as the caller saw it. want is If-Match, tag what is there; "":
// there is nothing.
func changed(want, tag string) error {
	if want == "" || want == "*" && tag != "" || tag != "" && matches(want, tag) {
		return nil
	}
	return api.NewProblem(http.StatusPreconditionFailed, "somebody has changed it meanwhile")
}

type ifMatch struct {
	Want string `header:"If-Match" doc:"ETag of what is to be changed"`
}

type putSettingsIn struct {
	byID
	ifMatch
	Body api.Settings
}

func (s *Server) putSettings(c *call, in *putSettingsIn) error {
	return s.svc.ChangeSettings(c.r.Context(), c.who.caller(), in.ID, func(was api.Settings) (api.Settings, error) {
		tag, err := tagOf(&was)
		if err == nil {
			err = changed(in.Want, tag)
		}
		return in.Body, err
	})
}

type suspendIn struct {
	byID
	Body api.SuspendRequest
}

func (s *Server) suspend(c *call, in *suspendIn) (*api.Suspension, error) {
	return s.svc.Suspend(c.r.Context(), c.who.caller(), in.ID, in.Body)
}

func (s *Server) resume(c *call, in *byID) error {
	return s.svc.Resume(c.r.Context(), c.who.caller(), in.ID)
}

type assignIn struct {
	byID
	Body api.Assign
}

func (s *Server) assign(c *call, in *assignIn) error {
	return s.svc.ChangeSettings(c.r.Context(), c.who.caller(), in.ID, func(v api.Settings) (api.Settings, error) {
		v.RIMs = in.Body.RIMs
		return v, nil
	})
}

// history is the list of a machine's verdict events. The machine must be one that the caller sees.
func (s *Server) history(c *call, in *machinePage) (*api.Batch[api.Event], error) {
	ctx, who := c.r.Context(), c.who.caller()
	x, err := s.svc.Identity(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	return s.batch(c, api.EventFilter{Kinds: []string{api.EventVerdict}, Machine: x.Machine, Newest: true}, in.pageIn)
}

func (s *Server) reports(c *call, in *machinePage) (*api.List[api.ReportInfo], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	return s.svc.Reports(c.r.Context(), c.who.caller(), in.ID, p)
}

func (s *Server) machineEvidence(c *call, in *byID) ([]byte, error) {
	return s.svc.MachineEvidence(c.r.Context(), c.who.caller(), in.ID)
}

func (s *Server) machineIMA(c *call, in *byID) ([]byte, error) {
	return s.svc.MachineIMA(c.r.Context(), c.who.caller(), in.ID)
}

func (s *Server) machineBootLog(c *call, in *byID) ([]byte, error) {
	return s.svc.MachineBootLog(c.r.Context(), c.who.caller(), in.ID)
}

type imaIn struct {
	byID
	pageIn
	Bad  bool   `query:"bad" doc:"only what counts against the machine"`
	Text string `query:"text" doc:"part of the path"`
}

func (s *Server) imaEntries(c *call, in *imaIn) (*api.List[api.IMAEntry], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	return s.svc.IMAEntries(c.r.Context(), c.who.caller(), in.ID, api.IMAFilter{Bad: in.Bad, Text: in.Text, Page: p})
}

func (s *Server) bootEvents(c *call, in *byID) (*api.List[api.BootEvent], error) {
	return listed(s.svc.BootEvents(c.r.Context(), c.who.caller(), in.ID))
}

func (s *Server) pcrs(c *call, in *byID) (*api.List[api.PCRState], error) {
	return listed(s.svc.PCRs(c.r.Context(), c.who.caller(), in.ID))
}

func (s *Server) identity(c *call, in *byID) (*api.Identity, error) {
	return s.svc.Identity(c.r.Context(), c.who.caller(), in.ID)
}
