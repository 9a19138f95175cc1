package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"virt-attest/verifier/api"
)

// approve accepts a host's TPM. The fingerprint in the form is the one that the page showed: where another one is on
// record by now, the service refuses.
func (c *call) approve() error {
	h, err := c.svc.ApproveHost(c.r.Context(), c.who, c.r.PathValue("id"), api.Approve{EKSHA256: c.r.PostFormValue("ek_sha256")})
	if err != nil {
		return err
	}
	return c.see("/hosts/" + url.PathEscape(h.ID) + "?done=approved")
}

// deleteMachine makes the Verifier forget a machine.
func (c *call) deleteMachine() error {
	d, err := c.findMachine()
	if err != nil {
		return err
	}
	if d.IsVM() {
		err = c.svc.DeleteVM(c.r.Context(), c.who, d.ID)
	} else {
		err = c.svc.DeleteHost(c.r.Context(), c.who, d.ID)
	}
	if err != nil {
		return err
	}
	return c.see("/" + d.Kind + "?done=deleted")
}

// attestOne asks for evidence of a VM, or of a host with all its VMs.
func (c *call) attestOne() error {
	d, err := c.findMachine()
	if err != nil {
		return err
	}
	r := api.AttestRequest{Host: d.ID}
	if d.IsVM() {
		r = api.AttestRequest{Host: d.VM.Host, VMs: []string{d.ID}}
	}
	if r.Scheme, err = c.scheme(); err != nil {
		return err
	}
	j, err := c.svc.AttestAsync(c.r.Context(), c.who, r)
	if err != nil {
		return err
	}
	return c.see("/jobs?id=" + url.QueryEscape(j.ID) + "&to=" + url.QueryEscape(d.Path()))
}

// putSettings gives a machine its policy and reference values. The tenant is an admin's to say.
func (c *call) putSettings() error {
	d, err := c.findMachine()
	if err != nil {
		return err
	}
	err = c.svc.ChangeSettings(c.r.Context(), c.who, d.ID, func(s api.Settings) (api.Settings, error) {
		s.RIMs = append([]string{}, c.r.PostForm["rim"]...)
		if p := c.r.PostFormValue("policy"); p != "" {
			s.Policy = p
		}
		if d.IsVM() && admins.has(c.who) && c.who.Tenant == "" && c.r.PostForm.Has("tenant") {
			s.Tenant = c.r.PostFormValue("tenant")
		}
		return s, nil
	})
	if err != nil {
		return err
	}
	return c.see(d.Path() + "/settings?done=saved")
}

// suspend takes a machine out of the schedule, for some hours or until it is resumed.
func (c *call) suspend() error {
	d, err := c.findMachine()
	if err != nil {
		return err
	}
	r := api.SuspendRequest{Reason: c.r.PostFormValue("reason")}
	if s := c.r.PostFormValue("hours"); s != "" {
		hours, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return api.NewProblem(http.StatusBadRequest, "hours are a number")
		}
		r.Seconds = hours * 3600
	}
	if _, err := c.svc.Suspend(c.r.Context(), c.who, d.ID, r); err != nil {
		return err
	}
	return c.see(d.Path() + "/settings?done=suspended")
}

// resume puts a machine back into the schedule.
func (c *call) resume() error {
	d, err := c.findMachine()
	if err != nil {
		return err
	}
	if err := c.svc.Resume(c.r.Context(), c.who, d.ID); err != nil {
		return err
	}
	return c.see(d.Path() + "/settings?done=resumed")
}

// accept makes a draft of reference values that allow what a machine showed; its page shows the difference.
func (c *call) accept() error {
	rim := c.r.PostFormValue("rim")
	if rim == "" {
		return api.NewProblem(http.StatusBadRequest, "name the reference values that are to allow it; assign some to the machine first")
	}
	a := api.AcceptRequest{Machine: c.r.PathValue("id"), All: c.r.PostFormValue("all") != "", Note: c.r.PostFormValue("note")}
	for _, s := range c.r.PostForm["entry"] {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return api.NewProblem(http.StatusBadRequest, "an entry is named by its number")
		}
		a.Entries = append(a.Entries, n)
	}
	for _, s := range c.r.PostForm["pcr"] {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil || n > 23 {
			return api.NewProblem(http.StatusBadRequest, "PCRs are numbered from 0 to 23")
		}
		a.PCRs = append(a.PCRs, uint8(n))
	}
	if !a.All && len(a.Entries)+len(a.PCRs) == 0 {
		return api.NewProblem(http.StatusBadRequest, "nothing is ticked")
	}
	got, err := c.svc.Accept(c.r.Context(), c.who, rim, a)
	if err != nil {
		return err
	}
	return c.see("/rims/" + url.PathEscape(rim) + "?v=" + strconv.Itoa(got.Version.Version) + "&done=draft")
}

// machineFile gives what a verdict was made of, to keep.
func (c *call) machineFile() error {
	ctx, id := c.r.Context(), c.r.PathValue("id")
	switch c.r.PathValue("file") {
	case "evidence.cbor":
		b, err := c.svc.MachineEvidence(ctx, c.who, id)
		return c.give(err, api.TypeCBOR, id+"-evidence.cbor", b)
	case "ima.bin":
		b, err := c.svc.MachineIMA(ctx, c.who, id)
		return c.give(err, api.TypeBinary, id+"-ima.bin", b)
	case "boot.bin":
		b, err := c.svc.MachineBootLog(ctx, c.who, id)
		return c.give(err, api.TypeBinary, id+"-boot.bin", b)
	case "ear.jwt":
		s, err := c.svc.EAR(ctx, c.who, id, "")
		return c.give(err, "application/eat+jwt", id+"-ear.jwt", []byte(s))
	}
	return c.nothing()
}

func (c *call) give(err error, kind, file string, content []byte) error {
	if err != nil {
		return err
	}
	return c.download(kind, file, content)
}

// reportData is one attestation with the steps of its protocol.
type reportData struct {
	*api.Report
	Bars     []bar
	Verified *api.Reverified
}

// bar is a step's place in the whole, in thousandths, and how long it took. A Step's time is that since the first one.
type bar struct {
	api.Step
	Took     float64
	X, Width float64
}

func bars(steps []api.Step) []bar {
	var out []bar
	whole, at := 0.0, 0.0
	for _, s := range steps {
		whole = max(whole, s.Seconds)
	}
	for _, s := range steps {
		b := bar{Step: s, Took: max(s.Seconds-at, 0)}
		if whole > 0 {
			b.X, b.Width = min(1000*at/whole, 997), max(1000*b.Took/whole, 3)
		}
		at = max(at, s.Seconds)
		out = append(out, b)
	}
	return out
}

func (c *call) report() error {
	r, err := c.svc.Report(c.r.Context(), c.who, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.show("report", "vms", "Attestation "+short(r.ID), reportData{Report: r, Bars: bars(r.Steps)})
}

// reverify appraises a report's stored Evidence again, and compares.
func (c *call) reverify() error {
	v, err := c.svc.Reverify(c.r.Context(), c.who, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.show("report", "vms", "Attestation "+short(v.Stored.ID), reportData{Report: v.Stored, Bars: bars(v.Stored.Steps), Verified: v})
}

func (c *call) reportEvidence() error {
	id := c.r.PathValue("id")
	b, err := c.svc.ReportEvidence(c.r.Context(), c.who, id)
	return c.give(err, api.TypeCBOR, id+"-evidence.cbor", b)
}

func (c *call) reportJSON() error {
	r, err := c.svc.Report(c.r.Context(), c.who, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	return c.give(err, api.TypeJSON, r.ID+".json", b)
}
