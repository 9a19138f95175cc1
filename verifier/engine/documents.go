package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// isBuiltIn reports whether a document is always there.
func isBuiltIn(k api.DocKind, name string) bool {
	return k == api.DocPolicy && (name == store.DefaultHostPolicy || name == store.DefaultVMPolicy)
}

// mayRead refuses documents that a tenant's VMs are not appraised by: for the tenant they do not exist.
func (e *Engine) mayRead(ctx context.Context, who api.Caller, k api.DocKind, name string) error {
	if err := checkDoc(k, name); err != nil || who.Tenant == "" {
		return err
	}
	mine, err := e.store.DocumentsOf(ctx, who.Tenant)
	if err != nil {
		return fromStore(err, docText(k, name))
	}
	if !mine[string(k)+"/"+name] {
		return said(ErrNotFound, "%s is not known", docText(k, name))
	}
	return nil
}

// Documents lists the documents of a kind. A tenant sees those that its VMs are appraised by, and not who else is.
func (e *Engine) Documents(ctx context.Context, who api.Caller, k api.DocKind) ([]api.Document, error) {
	if k != api.DocRIM && k != api.DocPolicy {
		return nil, said(ErrInvalid, "there are no documents of kind %.20q", string(k))
	}
	list, err := e.store.Documents(ctx, k)
	if err != nil {
		return nil, fromStore(err, "documents")
	}
	if who.Tenant == "" {
		return append([]api.Document{}, list...), nil
	}
	mine, err := e.store.DocumentsOf(ctx, who.Tenant)
	if err != nil {
		return nil, fromStore(err, "documents")
	}
	out := []api.Document{}
	for _, d := range list {
		if mine[string(k)+"/"+d.Name] {
			d.Assigned, d.Machines = []string{}, 0
			out = append(out, d)
		}
	}
	return out, nil
}

// Document gives a version's content as it was stored; version 0 is the active one.
func (e *Engine) Document(ctx context.Context, who api.Caller, k api.DocKind, name string, version int) ([]byte, *api.DocVersion, error) {
	if err := e.mayRead(ctx, who, k, name); err != nil {
		return nil, nil, err
	}
	v, data, err := e.store.Version(ctx, k, name, version)
	if err != nil {
		return nil, nil, fromStore(err, versionText(k, name, version))
	}
	return data, v, nil
}

func versionText(k api.DocKind, name string, version int) string {
	if version == 0 {
		return "an active version of " + docText(k, name)
	}
	return fmt.Sprintf("version %d of %s", version, docText(k, name))
}

// DocVersions lists a document's versions, newest first.
func (e *Engine) DocVersions(ctx context.Context, who api.Caller, k api.DocKind, name string) ([]api.DocVersion, error) {
	if err := e.mayRead(ctx, who, k, name); err != nil {
		return nil, err
	}
	list, err := e.store.Versions(ctx, k, name)
	return list, fromStore(err, docText(k, name))
}

// DocDiff tells what version to says and version from does not, and the reverse. Version 0 is the active one.
func (e *Engine) DocDiff(ctx context.Context, who api.Caller, k api.DocKind, name string, from, to int) ([]api.DocChange, error) {
	if err := e.mayRead(ctx, who, k, name); err != nil {
		return nil, err
	}
	a, err := e.parsedVersion(ctx, k, name, from)
	if err != nil {
		return nil, err
	}
	b, err := e.parsedVersion(ctx, k, name, to)
	if err != nil {
		return nil, err
	}
	return difference(a, b), nil
}

func (e *Engine) parsedVersion(ctx context.Context, k api.DocKind, name string, version int) (*parsed, error) {
	_, data, err := e.store.Version(ctx, k, name, version)
	if err != nil {
		return nil, fromStore(err, versionText(k, name, version))
	}
	return parse(k, data)
}

// PutDocument stores a new version of a document. With d.Activate it counts at once, and what was appraised by
// another version is appraised again.
func (e *Engine) PutDocument(ctx context.Context, who api.Caller, k api.DocKind, name string, d api.DocPut) (*api.DocVersion, error) {
	if err := first(allTenants(who), checkDoc(k, name)); err != nil {
		return nil, err
	}
	if len(d.Note) > maxNote || checkText(d.Note) != nil {
		return nil, said(ErrInvalid, "the note has over %d bytes, or is not one printable line", maxNote)
	}
	doc, err := parse(k, d.Content)
	if err != nil {
		return nil, err
	}
	if doc.name != name {
		return nil, said(ErrInvalid, "the file names itself %q", doc.name)
	}
	n := store.NewVersion{Kind: k, Name: name, SHA256: sha256Hex(d.Content), Files: doc.files, Author: who.Name, Note: d.Note, Data: d.Content,
		Created: time.Now(), Activate: d.Activate, Match: d.Match}
	what := "stored"
	if d.Activate {
		what = "stored and activated"
	}
	by := e.trail(who, "document.put", string(k)+"/"+name, map[string]any{"sha256": n.SHA256, "activate": d.Activate, "note": d.Note}, api.Event{
		Kind: api.EventDocument, Name: name, Text: fmt.Sprintf("%s: a version was %s by %s", docText(k, name), what, who.Name)})
	v, err := e.store.PutVersion(ctx, n, by)
	if err != nil {
		return nil, fromStore(err, docText(k, name))
	}
	e.log.Info("document stored", "kind", k, "name", name, "version", v.Version, "sha256", v.SHA256, "active", v.Active)
	if d.Activate {
		_, err = e.reappraise(ctx, who, string(k)+"/"+name)
	}
	return v, err
}

// Activate makes a version the one that counts. Activating an older one rolls back.
func (e *Engine) Activate(ctx context.Context, who api.Caller, k api.DocKind, name string, version int) (*api.Job, error) {
	if err := first(allTenants(who), checkDoc(k, name)); err != nil {
		return nil, err
	}
	if _, err := e.parsedVersion(ctx, k, name, version); err != nil {
		return nil, err
	}
	by := e.trail(who, "document.activate", string(k)+"/"+name, map[string]any{"version": version}, api.Event{
		Kind: api.EventDocument, Name: name, Text: fmt.Sprintf("%s: version %d was activated by %s", docText(k, name), version, who.Name)})
	if _, err := e.store.Activate(ctx, k, name, version, time.Now(), by); err != nil {
		return nil, fromStore(err, versionText(k, name, version))
	}
	e.log.Info("document activated", "kind", k, "name", name, "version", version)
	return e.reappraise(ctx, who, string(k)+"/"+name)
}

// DeleteDocument removes a document with all its versions.
func (e *Engine) DeleteDocument(ctx context.Context, who api.Caller, k api.DocKind, name string) error {
	if err := first(allTenants(who), checkDoc(k, name)); err != nil {
		return err
	}
	if isBuiltIn(k, name) {
		return said(ErrConflict, "policy %s is always there; it can have new versions", name)
	}
	by := e.trail(who, "document.delete", string(k)+"/"+name, nil, api.Event{
		Kind: api.EventDocument, Name: name, Text: fmt.Sprintf("%s was removed by %s", docText(k, name), who.Name)})
	err := e.store.DeleteDocument(ctx, k, name, by)
	if errors.Is(err, store.ErrConflict) {
		return said(ErrConflict, "%s is assigned to machines", docText(k, name))
	}
	return fromStore(err, docText(k, name))
}

// first gives the first error of several.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
