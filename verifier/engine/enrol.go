package engine

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// enrolment waits for a host to show that its AK lives beside its EK. Nothing of it is on
// record before, but for a row that ends by itself, and nothing stays of one that fails.
type enrolment struct {
	Host     store.Host    `json:"host"`
	VMs      []store.Claim `json:"vms"`
	Token    string        `json:"token,omitempty"` // hash of the one-time token that the host showed
	Instance []byte        `json:"instance,omitempty"`
}

// Hello takes a host's introduction. A host whose AK is on record is welcome at once, any other
// gets a credential that only its TPM can open, and has one try at it.
func (e *Engine) Hello(ctx context.Context, client string, h *api.HostHello) (*api.HostWelcome, error) {
	ak, err := checkHello(h)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	id := api.HostID(h.EK)
	known, err := e.mayBe(ctx, client, id)
	if err != nil {
		return nil, err
	}
	en := &enrolment{Instance: h.Instance, VMs: claims(id, h.VMs), Host: store.Host{ID: id, Name: h.Name, Client: client, EK: h.EK, EKCert: h.EKCert,
		AK: h.AK, AKName: ak.Name(), How: e.endorsed(h, now), Software: h.Software, LastSeen: now}}
	if h.Token != "" && (known == nil || !known.Approved()) {
		en.Token = hashed([]byte(h.Token))
	}
	if known != nil && bytes.Equal(known.AKName, ak.Name()) && known.Client == client {
		if err := e.welcome(ctx, en, known); err != nil {
			return nil, err
		}
		w := &api.HostWelcome{ID: id}
		w.Schedule, w.Rules = e.scheduleOf(ctx, known, id)
		return w, nil
	}
	return e.challengeKey(ctx, client, en, now)
}

// checkHello holds a HostHello to its bounds and its AK to what a quote needs.
func checkHello(h *api.HostHello) (*quote.AK, error) {
	if len(h.EK) == 0 || len(h.EK) > attest.MaxPublic || len(h.EKCert) > attest.MaxCert || len(h.VMs) > api.MaxHostVMs || len(h.Instance) > 64 ||
		len(h.Software) > attest.MaxSoftware || len(h.Token) > maxToken {
		return nil, said(ErrInvalid, "the introduction is over its limits")
	}
	if err := checkName(h.Name); err != nil || h.Name == "" {
		return nil, said(ErrInvalid, "the host's name is empty, too long or not printable")
	}
	for _, s := range h.Software {
		if checkName(s.Name) != nil || checkName(s.Version) != nil {
			return nil, said(ErrInvalid, "the name of a program is too long or not printable")
		}
	}
	seen := make(map[attest.UUID]bool, len(h.VMs))
	for _, vm := range h.VMs {
		if checkName(vm.Name) != nil || seen[vm.UUID] {
			return nil, said(ErrInvalid, "VM %v stands there twice, or its name is too long or not printable", vm.UUID)
		}
		seen[vm.UUID] = true
	}
	ak, err := quote.ParseAK(h.AK)
	if err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	return ak, nil
}

// checkName refuses what could forge lines of a log or a table (CVE-2022-23949).
func checkName(s string) error {
	if len(s) > maxNameLen || strings.ToValidUTF8(s, "") != s || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ErrInvalid
	}
	return nil
}

func claims(host string, vms []api.HostVM) []store.Claim {
	out := make([]store.Claim, len(vms))
	for i, vm := range vms {
		out[i] = store.Claim{UUID: vm.UUID, Host: host, Name: vm.Name}
	}
	return out
}

// mayBe gives the host that is on record under an ID, or nil, and refuses a client certificate that belongs to
// another host.
func (e *Engine) mayBe(ctx context.Context, client, id string) (*store.Host, error) {
	h, err := e.store.Host(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fromStore(err, "host "+id)
	}
	if err != nil {
		h = nil
	}
	if client == "" {
		return h, nil
	}
	other, err := e.store.HostOfClient(ctx, client)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, fromStore(err, "the client")
	case other.ID != id:
		return nil, said(ErrForbidden, "the client certificate %q is that of host %s", client, other.ID)
	}
	if h != nil && h.Client != "" && h.Client != client {
		return nil, said(ErrForbidden, "host %s has another client certificate; an operator can remove it to enrol it again", id)
	}
	return h, nil
}

// endorsed says how the EK is accepted without an operator, if it is.
func (e *Engine) endorsed(h *api.HostHello, now time.Time) string {
	if len(h.EKCert) == 0 {
		return ""
	}
	if err := e.issuers.Load().Verify(h.EKCert, h.EK, now); err != nil {
		e.log.Info("EK certificate not accepted, an operator has to approve the host", "host", h.Name, "err", err)
		return ""
	}
	return store.ByCertificate
}

// challengeKey begins an enrolment, in place of an earlier one by the same client.
func (e *Engine) challengeKey(ctx context.Context, client string, en *enrolment, now time.Time) (*api.HostWelcome, error) {
	secret := random()
	act, err := activation(attest.UUID{}, en.Host.EK, en.Host.AKName, secret[:])
	if err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	data, err := json.Marshal(en)
	if err != nil {
		return nil, err
	}
	err = e.store.PutHello(ctx, store.Hello{Client: client, Host: en.Host.ID, Data: data, Secret: hashed(secret[:]), Until: now.Add(helloFor)}, maxHellos, now)
	if errors.Is(err, store.ErrFull) {
		return nil, said(ErrBusy, "too many hosts enrol at the moment")
	}
	if err != nil {
		return nil, fromStore(err, "enrolment")
	}
	return &api.HostWelcome{ID: en.Host.ID, Activation: []api.Activation{act}}, nil
}

// enrolled takes the content of a host's own credential. Any replica may have made it.
func (e *Engine) enrolled(ctx context.Context, client string, a *api.Activated) error {
	row, err := e.store.TakeHello(context.WithoutCancel(ctx), client, a.Host, time.Now()) // gone whatever comes of it
	if errors.Is(err, store.ErrNotFound) {
		return said(ErrGone, "no enrolment of this host is under way")
	}
	if err != nil {
		return fromStore(err, "enrolment")
	}
	var en enrolment
	if err := json.Unmarshal(row.Data, &en); err != nil {
		return err
	}
	if !opened(a.Items, attest.UUID{}, row.Secret) || subtle.ConstantTimeCompare([]byte(en.Host.ID), []byte(a.Host)) != 1 {
		e.log.Warn("enrolment failed: the credential was not opened", "host", en.Host.ID, "name", en.Host.Name, "client", client)
		return said(ErrForbidden, "the credential was not opened by this TPM")
	}
	known, err := e.mayBe(ctx, client, en.Host.ID) // again: it may have changed meanwhile
	if err != nil {
		return err
	}
	return e.welcome(ctx, &en, known)
}

// welcome records a host that is who it says. known is what was on record of it, or nil.
func (e *Engine) welcome(ctx context.Context, en *enrolment, known *store.Host) error {
	h := &en.Host
	h.LastSeen = time.Now()
	if err := e.store.PutHost(ctx, h, en.VMs, en.Token); err != nil {
		return fromStore(err, "host "+h.ID)
	}
	now, err := e.store.Host(ctx, h.ID)
	if err != nil {
		return fromStore(err, "host "+h.ID)
	}
	if en.Token != "" && !now.Approved() {
		e.log.Warn("the enrolment token is not known, used up, too old or for another host: an operator has to approve the host", "host", h.ID, "name", h.Name)
	}
	if err := e.record(ctx, now, known); err != nil {
		return err
	}
	e.lines.revoke(h.ID)
	e.plans.drop(h.ID)
	if err := e.arrived(ctx, h.ID, hex.EncodeToString(en.Instance)); err != nil {
		return err
	}
	e.log.Info("host is here", "host", h.ID, "name", h.Name, "vms", len(en.VMs))
	return nil
}

// arrived notes which run of hostd is there. What an earlier one took and did not answer comes again.
func (e *Engine) arrived(ctx context.Context, host, instance string) error {
	now := time.Now()
	e.lines.hear(host, now)
	if instance == "" {
		return nil
	}
	before, err := e.store.Online(ctx, []string{host})
	if err != nil {
		return fromStore(err, "host "+host)
	}
	if before[host].Instance == instance {
		return nil
	}
	e.lines.is(host, instance)
	if err := e.store.PutPresence(ctx, e.id, []store.Seen{{Host: host, Instance: instance, At: now}}); err != nil {
		return fromStore(err, "host "+host)
	}
	if before[host].Instance != "" {
		_, err = e.store.Redeliver(ctx, host, now)
	}
	return fromStore(err, "challenges")
}

// record tells what an introduction changed: in the audit log, and to an operator where it should be looked at.
func (e *Engine) record(ctx context.Context, h, known *store.Host) error {
	now := time.Now()
	detail := map[string]string{"name": h.Name, "ek_sha256": api.EKSHA256(h.EK), "ak_name": h.AKName.String(), "client": h.Client, "approved_by": h.How}
	action := ""
	switch {
	case known == nil:
		action = "host.enrol"
	case !bytes.Equal(known.AKName, h.AKName):
		action = "host.rekey"
		detail["ak_name_before"] = known.AKName.String()
	case known.Client != h.Client:
		action = "host.client"
	case known.Name != h.Name:
		action = "host.rename"
		detail["name_before"] = known.Name
	case !known.Approved() && h.Approved():
		action = "host.approve"
	default:
		return nil
	}
	b, err := json.Marshal(detail)
	if err != nil {
		return err
	}
	entry := api.AuditEntry{Time: now, Actor: "host:" + h.ID, Action: action, Object: h.ID, Detail: b}
	if err := e.store.PutAudit(ctx, entry); err != nil {
		return fromStore(err, "audit log")
	}
	return e.sameNames(ctx, h, now)
}

// sameNames tells an operator of a host that calls itself what another is called (CVE-2025-13609: it does not
// take the other one's place).
func (e *Engine) sameNames(ctx context.Context, h *store.Host, now time.Time) error {
	named, err := e.store.HostsNamed(ctx, h.Name)
	if err != nil {
		return fromStore(err, "hosts")
	}
	if len(named) < 2 {
		return fromStore(e.store.CloseAlert(ctx, h.ID, AlertHostName, now), "alert")
	}
	why := sameName(h.Name)
	return fromStore(e.store.RaiseAlert(ctx, api.Alert{Code: AlertHostName, Machine: h.ID, Name: h.Name, Host: h.ID, State: appraise.Pending, Text: why.Text, Hint: why.Hint}, now), "alert")
}
