package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"strings"
	"time"
	"unicode"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/credential"
	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// Client is who speaks for a host: the common name of its certificate, or "" for a process on
// this machine that may speak for any.
type Client string

// hello names an enrolment under way.
type hello struct {
	client Client
	host   string
}

// enrolment waits for a host to show that its AK lives beside its EK. Nothing of it is on
// record before, and nothing stays of one that fails.
type enrolment struct {
	host   *store.Host
	vms    []store.Claim
	secret []byte
	until  time.Time
}

// Hello takes a host's introduction. A host whose AK is on record is welcome at once, any other
// gets a credential that only its TPM can open, and has one try at it.
func (e *Engine) Hello(ctx context.Context, client Client, h *api.HostHello) (*api.HostWelcome, error) {
	ak, err := checkHello(h)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	id := api.HostID(h.EK)
	if err := e.mayBe(ctx, client, id); err != nil {
		return nil, err
	}
	host := &store.Host{ID: id, Name: h.Name, Client: string(client), EK: h.EK, EKCert: h.EKCert, AK: h.AK, AKName: ak.Name(),
		How: e.endorsed(h, now), Software: h.Software, LastSeen: now}
	vms := claims(id, h.VMs)
	known, err := e.store.Host(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fromStore(err, "host "+id)
	}
	if err == nil && bytes.Equal(known.AKName, ak.Name()) && known.Client == string(client) {
		e.presence(id).arrived(string(h.Instance))
		return &api.HostWelcome{ID: id}, e.welcome(ctx, host, vms)
	}
	return e.challengeKey(client, host, vms, now)
}

// checkHello holds a HostHello to its bounds and its AK to what a quote needs.
func checkHello(h *api.HostHello) (*quote.AK, error) {
	if len(h.EK) == 0 || len(h.EK) > attest.MaxPublic || len(h.EKCert) > attest.MaxCert || len(h.VMs) > api.MaxHostVMs || len(h.Instance) > 64 || len(h.Software) > 32 {
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

// mayBe refuses a client certificate that belongs to another host.
func (e *Engine) mayBe(ctx context.Context, client Client, id string) error {
	if client == "" {
		return nil
	}
	h, err := e.store.HostOfClient(ctx, string(client))
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return fromStore(err, "the client")
	case h.ID != id:
		return said(ErrForbidden, "the client certificate %q is that of host %s", string(client), h.ID)
	}
	h, err = e.store.Host(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return fromStore(err, "host "+id)
	case h.Client != "" && h.Client != string(client):
		return said(ErrForbidden, "host %s has another client certificate; an operator can remove it to enrol it again", id)
	}
	return nil
}

// speaksFor refuses a client that is not the host's own, and a host that is not enrolled.
func (e *Engine) speaksFor(ctx context.Context, client Client, id string) error {
	h, err := e.store.Host(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return said(ErrForbidden, "this host is not enrolled: it has to say hello first")
	}
	if err != nil {
		return fromStore(err, "host "+id)
	}
	if client != "" && h.Client != string(client) {
		return said(ErrForbidden, "this client certificate is not that of the host")
	}
	return nil
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
func (e *Engine) challengeKey(client Client, host *store.Host, vms []store.Claim, now time.Time) (*api.HostWelcome, error) {
	secret := random()
	act, err := activation(attest.UUID{}, host.EK, host.AKName, secret[:])
	if err != nil {
		return nil, said(ErrInvalid, "%v", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.hellos) >= maxHellos {
		return nil, said(ErrBusy, "too many hosts enrol at the moment")
	}
	e.hellos[hello{client, host.ID}] = &enrolment{host: host, vms: vms, secret: secret[:], until: now.Add(helloFor)}
	return &api.HostWelcome{ID: host.ID, Activation: []api.Activation{act}}, nil
}

func activation(machine attest.UUID, ek []byte, ak attest.Name, secret []byte) (api.Activation, error) {
	blob, enc, err := credential.Make(rand.Reader, ek, ak, secret)
	return api.Activation{Machine: machine, CredentialBlob: blob, Secret: enc}, err
}

// Activated takes the contents of credentials: of a host's own enrolment (zero nonce), or of the vTPMs
// in an Evidence. Each credential has one try.
func (e *Engine) Activated(ctx context.Context, client Client, a *api.Activated) error {
	if len(a.Items) > api.MaxHostVMs+1 {
		return said(ErrInvalid, "too many keys")
	}
	if a.Nonce != (attest.Nonce{}) {
		return e.activatedVMs(ctx, client, a)
	}
	e.mu.Lock()
	key := hello{client, a.Host}
	en := e.hellos[key]
	delete(e.hellos, key)
	e.mu.Unlock()
	if en == nil || time.Now().After(en.until) {
		return said(ErrGone, "no enrolment of this host is under way")
	}
	if !opened(a.Items, attest.UUID{}, en.secret) {
		e.log.Warn("enrolment failed: the credential was not opened", "host", en.host.ID, "name", en.host.Name, "client", string(client))
		return said(ErrForbidden, "the credential was not opened by this TPM")
	}
	return e.welcome(ctx, en.host, en.vms)
}

// opened reports whether machine's credential came back with its content. The comparison
// takes the same time wherever they differ, and the content is told to nobody (CVE-2023-38201).
func opened(items []api.ActivatedKey, machine attest.UUID, secret []byte) bool {
	for _, it := range items {
		if it.Machine == machine {
			return subtle.ConstantTimeCompare(it.Secret, secret) == 1
		}
	}
	return false
}

// welcome records a host that is who it says.
func (e *Engine) welcome(ctx context.Context, h *store.Host, vms []store.Claim) error {
	if err := e.store.PutHost(ctx, h, vms, ""); err != nil {
		return fromStore(err, "host "+h.ID)
	}
	e.presence(h.ID).seen(time.Now())
	e.log.Info("host is here", "host", h.ID, "name", h.Name, "vms", len(vms))
	return nil
}

func (e *Engine) dropHellos(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, en := range e.hellos {
		if now.After(en.until) {
			delete(e.hellos, k)
		}
	}
}
