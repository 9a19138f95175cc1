package apitest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Stats is a day's curve: busy at noon, quiet at night, a fault two thirds into it.
func (f *Fake) Stats(_ context.Context, _ api.Caller, seconds, steps int) (*api.Stats, error) {
	if seconds <= 0 || steps <= 0 || steps > 2000 {
		return nil, invalid("seconds and steps are from 1, steps at most 2000")
	}
	to := f.Now()
	s := &api.Stats{From: to.Add(-time.Duration(seconds) * time.Second), To: to, Step: float64(seconds) / float64(steps)}
	for i := range steps {
		x := float64(i) / float64(steps)
		load := 2 + 1.5*math.Sin(2*math.Pi*x) + 0.3*math.Sin(40*x)
		away := (x - 0.66) * 25
		fault := math.Exp(-away * away)
		q := &s.Series
		q.VMs, q.Trusted = append(q.VMs, load), append(q.Trusted, 0.97-0.4*fault)
		q.PerQuote, q.Entries = append(q.PerQuote, 4*load), append(q.Entries, 3*load)
		q.Bytes, q.Queue = append(q.Bytes, 52000*load), append(q.Queue, math.Round(load+20*fault))
		for _, d := range []struct {
			q    *api.Quantiles
			base float64
		}{{&q.Latency, 0.7 + fault}, {&q.Appraise, 0.02 + 0.05*fault}} {
			d.q.P50, d.q.P95, d.q.P99 = append(d.q.P50, d.base), append(d.q.P95, d.base*1.8), append(d.q.P99, d.base*3.1)
		}
	}
	return s, nil
}

// target gives the VMs and the host that a request is about.
func (f *Fake) target(who api.Caller, r api.AttestRequest) (*api.Report, error) {
	if r.Scheme < attest.SchemeHost || r.Timeout < 0 || r.Timeout > api.MaxTimeout.Seconds() {
		return nil, invalid("scheme or timeout")
	}
	rep := &api.Report{Scheme: r.Scheme, VMs: []appraise.Result{}, Steps: []api.Step{{Text: "challenge made"}, {Text: "report committed", Seconds: 0.2}}}
	for _, name := range r.VMs {
		i, err := f.vm(who, name)
		if err != nil {
			return nil, err
		}
		r.Host = f.vms[i].Host
		rep.VMs = append(rep.VMs, f.vms[i].Result)
	}
	i, err := f.host(r.Host)
	if err != nil {
		return nil, err
	}
	rep.Host = hostFor(who, f.hosts[i]).Result
	if len(r.VMs) == 0 && r.Scheme != attest.SchemeHost {
		for _, v := range f.vms {
			if v.Host == f.hosts[i].ID && f.sees(who, v.UUID) {
				rep.VMs = append(rep.VMs, v.Result)
			}
		}
	}
	rep.ID = hash(f.id("attest"))
	return rep, nil
}

// Attest repeats what is on record.
func (f *Fake) Attest(_ context.Context, who api.Caller, r api.AttestRequest) (*api.Report, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rep, err := f.target(who, r)
	if err != nil {
		return nil, err
	}
	f.reports[rep.ID] = rep
	f.record(who, "attest", rep.ID)
	return rep, nil
}

// AttestAsync is done at once.
func (f *Fake) AttestAsync(ctx context.Context, who api.Caller, r api.AttestRequest) (*api.Job, error) {
	rep, err := f.Attest(ctx, who, r)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	j := &api.Job{ID: rep.ID, Kind: "attest", State: "done", Done: 1, Total: 1, Created: f.Now(), Finished: f.Now()}
	f.jobs[j.ID] = j
	return j, nil
}

// once is what a request with a key got.
type once struct {
	request string
	job     *api.Job
}

// AttestOnce remembers keys for good.
func (f *Fake) AttestOnce(ctx context.Context, who api.Caller, key string, r api.AttestRequest) (*api.Job, error) {
	key, request := fmt.Sprintf("%q %q", who.Name, key), fmt.Sprintf("%+v", r)
	f.mu.Lock()
	got, again := f.once[key]
	f.mu.Unlock()
	if again && got.request != request {
		return nil, api.NewProblem(http.StatusUnprocessableEntity, "another request came with this Idempotency-Key")
	}
	if again {
		return got.job, nil
	}
	j, err := f.AttestAsync(ctx, who, r)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.once[key] = once{request, j}
	}
	return j, err
}

// Gate answers by what is on record.
func (f *Fake) Gate(_ context.Context, who api.Caller, r api.GateRequest) (*api.Gate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.vm(who, r.VM)
	if err != nil {
		return nil, err
	}
	res := f.vms[i].Result
	g := &api.Gate{Trusted: res.State == appraise.Trusted, Result: res, Age: -1}
	if !res.Time.IsZero() {
		g.Age = f.Now().Sub(res.Time).Seconds()
	}
	if g.Age > r.MaxAge || r.MaxAge == 0 {
		if g.Attested = r.Timeout > 0; g.Attested {
			g.Age = 0.2
		} else {
			g.Trusted = false
		}
	}
	g.EAR = f.ear(res, r.Nonce)
	return g, nil
}

// ear has the form of a token and no signature that means anything.
func (f *Fake) ear(res appraise.Result, nonce string) string {
	status := map[bool]string{true: "affirming", false: "contraindicated"}[res.State == appraise.Trusted]
	body, err := json.Marshal(map[string]any{"eat_profile": "tag:github.com,2023:veraison/ear", "iat": f.Now().Unix(), "eat_nonce": nonce,
		"submods": map[string]any{res.UUID.String(): map[string]any{"ear.status": status}}})
	if err != nil {
		return ""
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return b64([]byte(`{"alg":"ES256","typ":"JWT","kid":"sample"}`)) + "." + b64(body) + "." + b64(make([]byte, 64))
}

// EAR gives a token of the right form.
func (f *Fake) EAR(_ context.Context, who api.Caller, vm, nonce string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.vm(who, vm)
	if err != nil {
		return "", err
	}
	return f.ear(f.vms[i].Result, nonce), nil
}

// JWKS gives a key set with one key.
func (f *Fake) JWKS(context.Context) ([]byte, error) {
	return []byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"sample","use":"sig","alg":"ES256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`), nil
}

// Verify judges nothing: the evidence is malformed.
func (f *Fake) Verify(_ context.Context, _ api.Caller, r api.VerifyRequest) (*api.Report, error) {
	if len(r.Evidence) == 0 {
		return nil, invalid("no evidence")
	}
	return &api.Report{ID: hash(string(r.Evidence)), Scheme: attest.SchemeSEPA, Steps: []api.Step{}, VMs: []appraise.Result{}, Host: appraise.Result{Name: "saved", State: appraise.Untrusted,
		Reasons: []appraise.Reason{{Code: appraise.CodeMalformed, Layer: appraise.LayerHost, Text: "the evidence cannot be read"}}}}, nil
}

// Report gives a report whose VMs who may see.
func (f *Fake) Report(_ context.Context, who api.Caller, id string) (*api.Report, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.report(who, id)
}

func (f *Fake) report(who api.Caller, id string) (*api.Report, error) {
	r := f.reports[id]
	if r == nil {
		return nil, notFound("report", id)
	}
	out := *r
	out.VMs = slices.DeleteFunc(slices.Clone(r.VMs), func(v appraise.Result) bool { return !f.sees(who, v.UUID) })
	if who.Tenant != "" && len(out.VMs) == 0 {
		return nil, notFound("report", id)
	}
	return &out, nil
}

// ReportEvidence gives bytes.
func (f *Fake) ReportEvidence(ctx context.Context, who api.Caller, id string) ([]byte, error) {
	if _, err := f.Report(ctx, who, id); err != nil {
		return nil, err
	}
	return []byte{0xa1, 0x01, 0x01}, nil
}

// Reverify finds no difference.
func (f *Fake) Reverify(ctx context.Context, who api.Caller, id string) (*api.Reverified, error) {
	r, err := f.Report(ctx, who, id)
	if err != nil {
		return nil, err
	}
	return &api.Reverified{Stored: r, Now: r, Same: true}, nil
}

// Reports lists a machine's reports.
func (f *Fake) Reports(_ context.Context, who api.Caller, machine string, p api.Page) (*api.List[api.ReportInfo], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, _, err := f.machine(who, machine)
	if err != nil {
		return nil, err
	}
	return cut(f.lists[id], p)
}

// bytes gives b for a machine that who sees.
func (f *Fake) bytes(who api.Caller, machine, b string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, _, err := f.machine(who, machine)
	return []byte(b), err
}

// MachineEvidence gives bytes.
func (f *Fake) MachineEvidence(_ context.Context, who api.Caller, machine string) ([]byte, error) {
	return f.bytes(who, machine, "\xa1\x01\x01")
}

// MachineIMA gives bytes.
func (f *Fake) MachineIMA(_ context.Context, who api.Caller, machine string) ([]byte, error) {
	return f.bytes(who, machine, "binary IMA log")
}

// MachineBootLog gives bytes.
func (f *Fake) MachineBootLog(_ context.Context, who api.Caller, machine string) ([]byte, error) {
	return f.bytes(who, machine, "binary boot log")
}

// IMAEntries gives a log of the machine's length.
func (f *Fake) IMAEntries(_ context.Context, who api.Caller, machine string, flt api.IMAFilter) (*api.List[api.IMAEntry], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, res, err := f.machine(who, machine)
	if err != nil {
		return nil, err
	}
	out := []api.IMAEntry{}
	for i := range res.Entries {
		e := api.IMAEntry{Index: i, Template: "ima-ng", Path: fmt.Sprintf("/usr/lib/x86_64-linux-gnu/lib%03d.so", i), Digest: "sha256:" + hash("file", fmt.Sprint(i)), Verdict: "allowed"}
		switch {
		case i == 0:
			e.Path, e.Verdict = "boot_aggregate", "aggregate"
		case i%40 == 7:
			e.Path, e.Verdict, e.Text = fmt.Sprintf("/var/lib/app/cache/%d", i), "excluded", "excluded by web-server"
		}
		for _, r := range res.Reasons {
			if r.Entry != nil && *r.Entry == i {
				e.Path, e.Digest, e.Verdict, e.Text = r.Path, r.Digest, "unlisted", r.Text
			}
		}
		bad := slices.Contains([]string{"unlisted", "digest", "violation", "unread"}, e.Verdict)
		if (!flt.Bad || bad) && strings.Contains(e.Path, flt.Text) {
			out = append(out, e)
		}
	}
	return cut(out, flt.Page)
}

// BootEvents gives a short boot log.
func (f *Fake) BootEvents(_ context.Context, who api.Caller, machine string) ([]api.BootEvent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, _, err := f.machine(who, machine); err != nil {
		return nil, err
	}
	out := []api.BootEvent{}
	for i, e := range []struct {
		pcr        uint8
		kind, data string
	}{{0, "EV_S_CRTM_VERSION", "OVMF 2022.11"}, {0, "EV_EFI_PLATFORM_FIRMWARE_BLOB", "0x820000+917504"}, {7, "EV_EFI_VARIABLE_DRIVER_CONFIG", "SecureBoot"},
		{4, "EV_EFI_BOOT_SERVICES_APPLICATION", "\\EFI\\debian\\shimx64.efi"}, {4, "EV_EFI_BOOT_SERVICES_APPLICATION", "\\EFI\\debian\\grubx64.efi"},
		{8, "EV_IPL", "linux /vmlinuz ima_policy=tcb ima_hash=sha256"}, {9, "EV_IPL", "/initrd.img"}, {0, "EV_SEPARATOR", "00000000"}} {
		out = append(out, api.BootEvent{Index: i, PCR: e.pcr, Type: e.kind, Digest: "sha256:" + hash(e.kind, e.data), Data: e.data, Matched: e.kind != "EV_EFI_BOOT_SERVICES_APPLICATION"})
	}
	return out, nil
}

// PCRs gives the registers 0 to 14; one that a reason names is another than expected.
func (f *Fake) PCRs(_ context.Context, who api.Caller, machine string) ([]api.PCRState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, res, err := f.machine(who, machine)
	if err != nil {
		return nil, err
	}
	uses := []string{"firmware code", "firmware configuration", "option ROM code", "option ROM configuration", "boot loader code", "boot loader configuration",
		"host platform", "Secure Boot policy", "boot loader commands", "boot loader files", "IMA log", "kernel image", "", "", "shim"}
	out := []api.PCRState{}
	for i, use := range uses {
		v := attest.HexBytes(hash("pcr", fmt.Sprint(i)))[:32]
		p := api.PCRState{Alg: attest.SHA256, Index: uint8(i), Use: use, Quoted: v, Expected: []attest.HexBytes{v}, Verdict: "ok"}
		switch {
		case i == 10:
			p.Expected, p.Verdict = nil, "replayed"
		case use == "":
			p.Expected, p.Verdict = nil, "not-compared"
		}
		for _, r := range res.Reasons {
			if r.PCR != nil && int(*r.PCR) == i {
				p.Expected, p.Verdict = []attest.HexBytes{attest.HexBytes(hash("other", fmt.Sprint(i)))[:32]}, "mismatch"
			}
		}
		out = append(out, p)
	}
	return out, nil
}

func (f *Fake) identity(id string, res appraise.Result) api.Identity {
	name := func(s string) attest.HexBytes { return attest.HexBytes(append([]byte{0, 0x0b}, hash(s, id)[:32]...)) }
	x := api.Identity{Machine: id, Name: res.Name, EKSHA256: hash("ek", id), EKName: name("ek"), AKName: name("ak"),
		EKPEM: "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n",
		AKPEM: "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAF\n-----END PUBLIC KEY-----\n",
		How:   "activation", FirstSeen: f.start.Add(-700 * time.Hour), LastSeen: res.Time}
	if res.UUID == (attest.UUID{}) {
		x.How, x.Issuer = "certificate", "CN=Sample TPM Manufacturer CA"
		return x
	}
	x.Host = res.Host
	if i, err := f.host(res.Host); err == nil {
		x.HostName = f.hosts[i].Name
	}
	x.Link = api.LayerLink{OK: linked(res), Scheme: res.Scheme, Time: res.Time}
	for _, r := range res.Reasons {
		if r.Layer == appraise.LayerLink {
			x.Link.Reasons = append(x.Link.Reasons, r)
		}
	}
	return x
}

// Identity gives a machine's keys.
func (f *Fake) Identity(_ context.Context, who api.Caller, machine string) (*api.Identity, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, res, err := f.machine(who, machine)
	if err != nil {
		return nil, err
	}
	x := f.identity(id, res)
	return &x, nil
}

// Identities lists the VMs' keys.
func (f *Fake) Identities(_ context.Context, who api.Caller, p api.Page) (*api.List[api.Identity], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []api.Identity{}
	for _, v := range f.vms {
		if f.sees(who, v.UUID) {
			out = append(out, f.identity(v.UUID.String(), v.Result))
		}
	}
	return cut(out, p)
}
