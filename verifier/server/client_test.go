package server_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/server"
)

func TestClient_speaks_all_of_the_interface(t *testing.T) {
	s := serve(t, server.Options{})
	c, ctx := s.client(api.RoleAdmin, ""), t.Context()
	vm := apitest.VMID(4).String()
	var out bytes.Buffer
	var hook *api.Webhook
	var token *api.Token
	var enrol *api.EnrolToken
	for name, f := range map[string]func() error{
		"overview":   func() error { _, err := c.Overview(ctx); return err },
		"topology":   func() error { _, err := c.Topology(ctx); return err },
		"stats":      func() error { _, err := c.Stats(ctx, 3600, 10); return err },
		"ready":      func() error { return c.Ready(ctx) },
		"hosts":      func() error { _, err := c.Hosts(ctx); return err },
		"host":       func() error { _, err := c.Host(ctx, "kvm1"); return err },
		"approve":    func() error { h, _ := c.Host(ctx, "kvm3"); _, err := c.ApproveHost(ctx, h.ID, h.EKSHA256); return err },
		"enrolments": func() error { _, err := c.Enrolments(ctx); return err },
		"vm":         func() error { _, err := c.VM(ctx, vm); return err },
		"settings":   func() error { v, err := c.Settings(ctx, vm); return errors.Join(err, c.PutSettings(ctx, vm, *v)) },
		"rims of":    func() error { return c.AssignRIMs(ctx, vm, []string{"database"}) },
		"attest":     func() error { _, err := c.Attest(ctx, api.AttestRequest{VMs: []string{vm}, Scheme: 2}); return err },
		"async": func() error {
			j, err := c.AttestAsync(ctx, api.AttestRequest{VMs: []string{vm}, Scheme: 2})
			_, e := c.Job(ctx, j.ID)
			return errors.Join(err, e)
		},
		"gate":     func() error { _, err := c.Gate(ctx, api.GateRequest{VM: vm, MaxAge: 60}); return err },
		"ear":      func() error { e, err := c.EAR(ctx, vm, "0123456789"); return errors.Join(err, jwt(e)) },
		"jwks":     func() error { _, err := c.JWKS(ctx); return err },
		"verify":   func() error { _, err := c.Verify(ctx, api.VerifyRequest{Evidence: []byte("x")}); return err },
		"report":   func() error { _, err := c.Report(ctx, apitest.ReportID(4)); return err },
		"evidence": func() error { _, err := c.ReportEvidence(ctx, apitest.ReportID(4)); return err },
		"reverify": func() error { _, err := c.Reverify(ctx, apitest.ReportID(4)); return err },
		"reports":  func() error { _, err := c.Reports(ctx, vm, api.Page{Limit: 5}); return err },
		"history":  func() error { b, err := c.History(ctx, vm, api.Page{}); return errors.Join(err, some(len(b.Items))) },
		"ima":      func() error { _, err := c.MachineIMA(ctx, vm); return err },
		"boot log": func() error { _, err := c.MachineBootLog(ctx, vm); return err },
		"newest":   func() error { _, err := c.MachineEvidence(ctx, vm); return err },
		"entries": func() error {
			l, err := c.IMAEntries(ctx, vm, api.IMAFilter{Bad: true})
			return errors.Join(err, some(l.Total))
		},
		"boot":       func() error { l, err := c.BootEvents(ctx, vm); return errors.Join(err, some(len(l))) },
		"pcrs":       func() error { l, err := c.PCRs(ctx, vm); return errors.Join(err, some(len(l))) },
		"identity":   func() error { _, err := c.Identity(ctx, vm); return err },
		"identities": func() error { l, err := c.Identities(ctx, api.Page{}); return errors.Join(err, some(l.Total)) },
		"documents":  func() error { l, err := c.Documents(ctx, api.DocPolicy); return errors.Join(err, some(len(l))) },
		"document": func() error {
			b, v, err := c.Document(ctx, api.DocPolicy, "strict", 2)
			if err == nil && v.Version != 2 {
				err = errors.New("another version")
			}
			return errors.Join(err, some(len(b)))
		},
		"put": func() error {
			v, err := c.PutDocument(ctx, api.DocPolicy, "new", api.DocPut{Content: []byte("{}"), Note: "ä & b"})
			return errors.Join(err, some(v.Version), c.DeleteDocument(ctx, api.DocPolicy, "new"))
		},
		"diff": func() error {
			l, err := c.DocDiff(ctx, api.DocRIM, "database", 1, 2)
			return errors.Join(err, some(len(l)))
		},
		"activate": func() error { _, err := c.Activate(ctx, api.DocRIM, "database", 1); return err },
		"impact":   func() error { _, err := c.Impact(ctx, api.DocRIM, "database", 2); return err },
		"accept": func() error {
			_, err := c.Accept(ctx, "web-server", api.AcceptRequest{Machine: vm, All: true})
			return err
		},
		"events": func() error {
			l, err := c.Events(ctx, api.EventFilter{Newest: true, Limit: 3})
			return errors.Join(err, some(len(l)))
		},
		"alerts": func() error {
			l, err := c.Alerts(ctx, true)
			_, e := c.AckAlert(ctx, l[0].ID)
			return errors.Join(err, e)
		},
		"webhooks": func() (err error) {
			hook, err = c.PutWebhook(ctx, api.Webhook{URL: "https://example.org", Kinds: []string{}})
			must(t, err)
			hook.Secret, hook.Enabled = "", true
			_, e1 := c.PutWebhook(ctx, *hook)
			_, e2 := c.TestWebhook(ctx, hook.ID)
			_, e3 := c.Webhooks(ctx)
			return errors.Join(e1, e2, e3, c.DeleteWebhook(ctx, hook.ID))
		},
		"audit": func() error {
			l, err := c.Audit(ctx, 0, 5)
			_, e := c.CheckAudit(ctx)
			return errors.Join(err, e, some(len(l)), c.ExportAudit(ctx, &out), some(out.Len()))
		},
		"tokens": func() (err error) {
			token, err = c.NewToken(ctx, api.TokenRequest{Name: "ci", Role: api.RoleViewer, TTL: 3600})
			must(t, err)
			_, e := c.Tokens(ctx)
			return errors.Join(e, c.DeleteToken(ctx, token.ID))
		},
		"enrol tokens": func() (err error) {
			enrol, err = c.NewEnrolToken(ctx, "kvm9", 3600)
			must(t, err)
			_, e := c.EnrolTokens(ctx)
			return errors.Join(e, c.DeleteEnrolToken(ctx, enrol.ID))
		},
		"replicas": func() error { l, err := c.Replicas(ctx); return errors.Join(err, some(len(l))) },
		"rims": func() error {
			l, err := c.RIMs(ctx)
			_, e := c.RIM(ctx, "database")
			return errors.Join(err, e, some(len(l)))
		},
	} {
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, c.DeleteVM(ctx, vm))
	must(t, c.DeleteHost(ctx, apitest.HostID(3)))
	if _, err := c.VM(ctx, vm); !api.IsStatus(err, 404) {
		t.Error(err)
	}
}

func some(n int) error {
	if n == 0 {
		return errors.New("nothing came")
	}
	return nil
}

func jwt(s string) error {
	if strings.Count(s, ".") != 2 {
		return fmt.Errorf("%q is no token", s)
	}
	return nil
}
