package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// document is a document with all its versions.
type document struct {
	versions []api.DocVersion
	content  [][]byte
}

func (d *document) active() int {
	return slices.IndexFunc(d.versions, func(v api.DocVersion) bool { return v.Active })
}

func (f *Fake) sampleDocuments() {
	f.docs = map[api.DocKind]map[string]*document{api.DocRIM: {}, api.DocPolicy: {}}
	for _, name := range []string{"kvm-host", "web-server", "database"} {
		text := fmt.Sprintf("{\n  \"format\": \"virt-attest/rim/1\",\n  \"name\": %q,\n  \"files\": {\n    \"/usr/bin/init\": [\"sha256:%s\"]\n  }\n}\n", name, hash("init"))
		f.docs[api.DocRIM][name] = f.sampleDocument(text, strings.Replace(text, "init\": [", "init\": [\"sha256:"+hash("old")+"\", ", 1), text+"\n")
	}
	for _, name := range []string{"default-host", "default-vm", "strict"} {
		text := fmt.Sprintf("{\n  \"format\": \"virt-attest/policy/1\",\n  \"name\": %q,\n  \"scheme\": \"sepa\",\n  \"interval\": \"5m\"\n}\n", name)
		f.docs[api.DocPolicy][name] = f.sampleDocument(text, strings.Replace(text, "5m", "10m", 1))
	}
}

// sampleDocument has versions that were made a week apart; the one before the last is active.
func (f *Fake) sampleDocument(texts ...string) *document {
	d := &document{}
	for i, t := range texts {
		v := api.DocVersion{Version: i + 1, SHA256: hash(t), Size: len(t), Created: f.start.Add(time.Duration(i-len(texts)) * 7 * 24 * time.Hour), Author: "cn:alice",
			Note: fmt.Sprintf("update %d", i+1), Active: i == len(texts)-2}
		if v.Active {
			v.Activated = v.Created.Add(time.Hour)
		}
		d.versions, d.content = append(d.versions, v), append(d.content, []byte(t))
	}
	return d
}

func (f *Fake) doc(k api.DocKind, name string, version int) (*document, int, error) {
	d := f.docs[k][name]
	if d == nil {
		return nil, 0, notFound(string(k), name)
	}
	i := version - 1
	if version == 0 {
		i = d.active()
	}
	if i < 0 || i >= len(d.versions) {
		return nil, 0, notFound("version of "+string(k), name)
	}
	return d, i, nil
}

// assigned lists the machines that use a document.
func (f *Fake) assigned(k api.DocKind, name string) []string {
	out := []string{}
	for id, s := range f.settings {
		if k == api.DocRIM && slices.Contains(s.RIMs, name) || k == api.DocPolicy && s.Policy == name {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Documents lists documents, with those of their machines that who sees.
func (f *Fake) Documents(_ context.Context, who api.Caller, k api.DocKind) ([]api.Document, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []api.Document{}
	for name, d := range f.docs[k] {
		at := slices.DeleteFunc(f.assigned(k, name), func(id string) bool {
			_, _, err := f.machine(who, id)
			return err != nil
		})
		x := api.Document{Kind: k, Name: name, Versions: len(d.versions), Modified: d.versions[len(d.versions)-1].Created, Assigned: at[:min(len(at), 100)], Machines: len(at)}
		if i := d.active(); i >= 0 {
			x.Active, x.SHA256 = i+1, d.versions[i].SHA256
		}
		if k == api.DocRIM {
			x.Files = 1
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b api.Document) int { return strings.Compare(a.Name, b.Name) })
	return out, f.fault
}

// Document gives a version's content.
func (f *Fake) Document(_ context.Context, _ api.Caller, k api.DocKind, name string, version int) ([]byte, *api.DocVersion, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, i, err := f.doc(k, name, version)
	if err != nil {
		return nil, nil, err
	}
	v := d.versions[i]
	return slices.Clone(d.content[i]), &v, nil
}

func named(s string) bool {
	return s != "" && len(s) <= 64 && s[0] != '.' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

// PutDocument adds a version. The content must be JSON.
func (f *Fake) PutDocument(_ context.Context, who api.Caller, k api.DocKind, name string, put api.DocPut) (*api.DocVersion, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !named(name) {
		return nil, invalid("a name is of a-z 0-9 . _ -, at most 64")
	}
	if !json.Valid(put.Content) {
		return nil, invalid("the document is not JSON")
	}
	d := f.docs[k][name]
	active := ""
	if d != nil && d.active() >= 0 {
		active = d.versions[d.active()].SHA256
	}
	if put.Match != nil && !put.Match(active) {
		return nil, api.NewProblem(http.StatusPreconditionFailed, "it was changed meanwhile")
	}
	if d == nil {
		d = &document{}
		f.docs[k][name] = d
	}
	d.versions = append(d.versions, api.DocVersion{Version: len(d.versions) + 1, SHA256: hash(string(put.Content)), Size: len(put.Content), Created: f.Now(), Author: who.Name, Note: put.Note})
	d.content = append(d.content, slices.Clone(put.Content))
	f.record(who, string(k)+".put", name)
	f.emit(api.Event{Kind: api.EventDocument, Name: name, Text: fmt.Sprintf("%s has version %d", name, len(d.versions))})
	if put.Activate {
		f.activate(who, k, name, d, len(d.versions)-1)
	}
	v := d.versions[len(d.versions)-1]
	return &v, nil
}

func (f *Fake) activate(who api.Caller, k api.DocKind, name string, d *document, i int) {
	for j := range d.versions {
		d.versions[j].Active = j == i
	}
	d.versions[i].Activated = f.Now()
	f.record(who, string(k)+".activate", fmt.Sprintf("%s/%d", name, i+1))
	f.emit(api.Event{Kind: api.EventDocument, Name: name, Text: fmt.Sprintf("version %d of %s is active", i+1, name)})
}

// DeleteDocument removes a document that nothing uses.
func (f *Fake) DeleteDocument(_ context.Context, who api.Caller, k api.DocKind, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.docs[k][name] == nil {
		return notFound(string(k), name)
	}
	if n := len(f.assigned(k, name)); n > 0 {
		return api.NewProblem(http.StatusConflict, "%d machines use it", n)
	}
	delete(f.docs[k], name)
	f.record(who, string(k)+".delete", name)
	return nil
}

// DocVersions lists versions, newest first.
func (f *Fake) DocVersions(_ context.Context, _ api.Caller, k api.DocKind, name string) ([]api.DocVersion, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.docs[k][name]
	if d == nil {
		return nil, notFound(string(k), name)
	}
	out := slices.Clone(d.versions)
	slices.Reverse(out)
	return out, nil
}

// DocDiff compares lines.
func (f *Fake) DocDiff(_ context.Context, _ api.Caller, k api.DocKind, name string, from, to int) ([]api.DocChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, i, err := f.doc(k, name, from)
	if err != nil {
		return nil, err
	}
	_, j, err := f.doc(k, name, to)
	if err != nil {
		return nil, err
	}
	before, after := strings.Split(string(d.content[i]), "\n"), strings.Split(string(d.content[j]), "\n")
	out := []api.DocChange{}
	for n, line := range after {
		if !slices.Contains(before, line) {
			out = append(out, api.DocChange{Op: "add", What: fmt.Sprintf("line %d", n+1), New: strings.TrimSpace(line)})
		}
	}
	for n, line := range before {
		if !slices.Contains(after, line) {
			out = append(out, api.DocChange{Op: "remove", What: fmt.Sprintf("line %d", n+1), Old: strings.TrimSpace(line)})
		}
	}
	return out, nil
}

// Activate makes a version the active one.
func (f *Fake) Activate(_ context.Context, who api.Caller, k api.DocKind, name string, version int) (*api.Job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, i, err := f.doc(k, name, version)
	if err != nil {
		return nil, err
	}
	f.activate(who, k, name, d, i)
	n := len(f.assigned(k, name))
	return f.job("reappraise", n, nil), nil
}

func (f *Fake) job(kind string, n int, result any) *api.Job {
	j := &api.Job{ID: f.id("job"), Kind: kind, State: "done", Done: n, Total: n, Created: f.Now(), Finished: f.Now()}
	if b, err := json.Marshal(result); err == nil && result != nil {
		j.Result = b
	}
	f.jobs[j.ID] = j
	out := *j
	return &out
}

// Impact says that the first machine which uses the document would no longer be TRUSTED.
func (f *Fake) Impact(_ context.Context, _ api.Caller, k api.DocKind, name string, version int) (*api.Job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, i, err := f.doc(k, name, version)
	if err != nil {
		return nil, err
	}
	at := f.assigned(k, name)
	im := api.Impact{Kind: k, Name: name, Version: i + 1, Machines: len(at), Judged: len(at), Changes: []api.ImpactMachine{}, Time: f.Now()}
	for _, v := range f.vms {
		if v.Result.State == appraise.Trusted && slices.Contains(at, v.UUID.String()) && len(im.Changes) == 0 {
			im.Changes = append(im.Changes, api.ImpactMachine{Machine: v.UUID.String(), Name: v.Name, Now: appraise.Trusted, Then: appraise.Untrusted, Reasons: why(appraise.Untrusted, 2)})
		}
	}
	return f.job("impact", len(at), im), nil
}

// Accept adds what a machine showed as a line.
func (f *Fake) Accept(ctx context.Context, who api.Caller, rim string, r api.AcceptRequest) (*api.Accepted, error) {
	content, v, err := f.Document(ctx, who, api.DocRIM, rim, 0)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	_, res, err := f.machine(who, r.Machine)
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	changes := []api.DocChange{}
	for _, x := range res.Reasons {
		if x.Path != "" && (r.All || x.Entry != nil && slices.Contains(r.Entries, *x.Entry)) {
			changes = append(changes, api.DocChange{Op: "add", What: x.Path, New: x.Digest})
		}
		if x.PCR != nil && slices.Contains(r.PCRs, *x.PCR) {
			changes = append(changes, api.DocChange{Op: "change", What: fmt.Sprintf("PCR %d", *x.PCR), New: hash("pcr")})
		}
	}
	if len(changes) == 0 {
		return nil, api.NewProblem(http.StatusConflict, "nothing to accept: version %d allows it", v.Version)
	}
	next, err := f.PutDocument(ctx, who, api.DocRIM, rim, api.DocPut{Content: append(content, '\n'), Note: r.Note, Activate: r.Activate})
	if err != nil {
		return nil, err
	}
	return &api.Accepted{Version: *next, Changes: changes}, nil
}
