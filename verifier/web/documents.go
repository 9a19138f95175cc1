package web

import (
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// docPage is what the pages of reference values and policies have in common.
type docPage struct {
	Kind  api.DocKind
	Path  string // "/rims"
	Title string // "Reference values"
}

func (c *call) docPage() docPage {
	if strings.HasPrefix(c.r.URL.Path, "/policies") {
		return docPage{api.DocPolicy, "/policies", "Policies"}
	}
	return docPage{api.DocRIM, "/rims", "Reference values"}
}

// section is the menu's entry.
func (d docPage) section() string { return strings.TrimPrefix(d.Path, "/") }

// of gives the address of a document's page.
func (d docPage) of(name string) string { return d.Path + "/" + url.PathEscape(name) }

type documentsData struct {
	docPage
	List []api.Document
}

func (c *call) documents() error {
	d := documentsData{docPage: c.docPage()}
	var err error
	if d.List, err = c.svc.Documents(c.r.Context(), c.who, d.Kind); err != nil {
		return err
	}
	return c.show("documents", d.section(), d.Title, d)
}

// documentData is a document with its versions, and one of them compared with another.
type documentData struct {
	docPage
	Name     string
	Doc      *api.Document
	Versions []api.DocVersion // newest first
	Shown    api.DocVersion
	Against  int // 0: there is nothing to compare with
	Changes  []api.DocChange
	More     int
	Counts   map[string]int // of changes by Op
	Text     string         // the version shown, where it is not large
}

// Self is the document's address.
func (d documentData) Self() string { return d.of(d.Name) }

func (c *call) document() error {
	ctx, q := c.r.Context(), c.r.URL.Query()
	d := documentData{docPage: c.docPage(), Name: c.r.PathValue("name"), Counts: map[string]int{}}
	docs, err := c.svc.Documents(ctx, c.who, d.Kind)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(docs, func(x api.Document) bool { return x.Name == d.Name })
	if i < 0 {
		return api.NewProblem(http.StatusNotFound, "there are no %s of this name", strings.ToLower(d.Title))
	}
	d.Doc = &docs[i]
	if d.Versions, err = c.svc.DocVersions(ctx, c.who, d.Kind, d.Name); err != nil {
		return err
	}
	slices.SortFunc(d.Versions, func(a, b api.DocVersion) int { return b.Version - a.Version })
	if err := d.choose(q.Get("v"), q.Get("against")); err != nil {
		return err
	}
	if d.Against != 0 {
		changes, err := c.svc.DocDiff(ctx, c.who, d.Kind, d.Name, d.Against, d.Shown.Version)
		if err != nil {
			return err
		}
		for _, x := range changes {
			d.Counts[x.Op]++
		}
		d.More = max(0, len(changes)-maxDiff)
		d.Changes = changes[:min(len(changes), maxDiff)]
	}
	if d.Shown.Size <= maxEdit {
		b, _, err := c.svc.Document(ctx, c.who, d.Kind, d.Name, d.Shown.Version)
		if err != nil {
			return err
		}
		d.Text = string(b)
	}
	return c.show("document", d.section(), plain(d.Name, maxName), d)
}

// choose picks the version shown, the active one or else the newest, and what it is compared with: the active one,
// or the one before.
func (d *documentData) choose(shown, against string) error {
	if len(d.Versions) == 0 {
		return api.NewProblem(http.StatusNotFound, "there is no version")
	}
	d.Shown = d.Versions[0]
	want := d.Doc.Active
	if shown != "" {
		n, err := strconv.Atoi(shown)
		if err != nil {
			return api.NewProblem(http.StatusBadRequest, "a version is a number")
		}
		want = n
	}
	for _, v := range d.Versions {
		if v.Version == want {
			d.Shown = v
		}
	}
	if shown != "" && d.Shown.Version != want {
		return api.NewProblem(http.StatusNotFound, "there is no version %d", want)
	}
	d.Against = d.Doc.Active
	if d.Shown.Version == d.Against {
		d.Against = 0
		for _, v := range d.Versions {
			if v.Version < d.Shown.Version {
				d.Against = v.Version
				break
			}
		}
	}
	if against != "" {
		n, err := strconv.Atoi(against)
		if err != nil || !slices.ContainsFunc(d.Versions, func(v api.DocVersion) bool { return v.Version == n }) {
			return api.NewProblem(http.StatusNotFound, "there is no such version to compare with")
		}
		d.Against = n
	}
	if d.Against == d.Shown.Version {
		d.Against = 0
	}
	return nil
}

// rawDocument gives a version to keep.
func (c *call) rawDocument() error {
	v, err := c.version(c.r.URL.Query().Get("v"))
	if err != nil {
		return err
	}
	d, name := c.docPage(), c.r.PathValue("name")
	b, got, err := c.svc.Document(c.r.Context(), c.who, d.Kind, name, v)
	if err != nil {
		return err
	}
	return c.download(api.TypeBinary, name+"-v"+strconv.Itoa(got.Version)+".txt", b)
}

func (c *call) version(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, api.NewProblem(http.StatusBadRequest, "a version is a number")
	}
	return n, nil
}

// jobMaker starts work on a version of a document.
type jobMaker func(context.Context, api.Caller, api.DocKind, string, int) (*api.Job, error)

type editData struct {
	docPage
	Name    string
	Version int
	Text    string
}

// editDocument shows a version as text to change; "-" is a new document.
func (c *call) editDocument() error {
	d := editData{docPage: c.docPage(), Name: c.r.PathValue("name")}
	if d.Name == "-" {
		d.Name = ""
		return c.show("edit", d.section(), "New "+strings.ToLower(d.Title), d)
	}
	v, err := c.version(c.r.URL.Query().Get("v"))
	if err != nil {
		return err
	}
	b, got, err := c.svc.Document(c.r.Context(), c.who, d.Kind, d.Name, v)
	if err != nil {
		return err
	}
	if len(b) > maxEdit {
		return api.NewProblem(http.StatusRequestEntityTooLarge, "this version is over %s: download it, change it, upload it", size(maxEdit))
	}
	d.Text, d.Version = string(b), got.Version
	return c.show("edit", d.section(), "Edit "+plain(d.Name, maxName), d)
}

// putDocument stores a new version: an uploaded file, or what was edited. It is a draft.
func (c *call) putDocument() error {
	d, name := c.docPage(), strings.TrimSpace(c.r.PostFormValue("name"))
	if name == "" {
		return api.NewProblem(http.StatusBadRequest, "a document needs a name")
	}
	content := []byte(strings.ReplaceAll(c.r.PostFormValue("content"), "\r\n", "\n")) // as browsers send lines
	if f, _, err := c.r.FormFile("file"); err == nil {
		if content, err = readAll(f); err != nil {
			return err
		}
	}
	if len(content) == 0 {
		return api.NewProblem(http.StatusBadRequest, "there is nothing in it")
	}
	v, err := c.svc.PutDocument(c.r.Context(), c.who, d.Kind, name, api.DocPut{Content: content, Note: c.r.PostFormValue("note")})
	if err != nil {
		return err
	}
	return c.see(d.of(name) + "?v=" + strconv.Itoa(v.Version) + "&done=draft")
}

func readAll(f multipart.File) ([]byte, error) {
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, api.MaxRIM+1))
	if err == nil && len(b) > api.MaxRIM {
		return nil, api.NewProblem(http.StatusRequestEntityTooLarge, "this file is over %s", size(api.MaxRIM))
	}
	return b, err
}

// activate makes a version the active one; an older one is a roll-back.
func (c *call) activate() error {
	return c.docJob(c.svc.Activate, "&done=activated")
}

// impact computes what activating a version would do.
func (c *call) impact() error { return c.docJob(c.svc.Impact, "") }

func (c *call) docJob(do jobMaker, done string) error {
	v, err := c.version(c.r.PostFormValue("v"))
	if err != nil {
		return err
	}
	d, name := c.docPage(), c.r.PathValue("name")
	j, err := do(c.r.Context(), c.who, d.Kind, name, v)
	if err != nil {
		return err
	}
	return c.see("/jobs?id=" + url.QueryEscape(j.ID) + "&to=" + url.QueryEscape(d.of(name)+"?v="+strconv.Itoa(v)) + done)
}

func (c *call) deleteDocument() error {
	d := c.docPage()
	if err := c.svc.DeleteDocument(c.r.Context(), c.who, d.Kind, c.r.PathValue("name")); err != nil {
		return err
	}
	return c.see(d.Path + "?done=deleted")
}

// jobsData is deferred work that somebody waits for.
type jobsData struct {
	Jobs    []jobView
	Running int
	To      string // page to go on to
}

type jobView struct {
	*api.Job
	Impact *api.Impact // of one that computed it
	Report *api.Report // of an attestation that is done
}

// Percent is how far the job is.
func (j jobView) Percent() int {
	if j.Total <= 0 {
		return 0
	}
	return 100 * min(j.Done, j.Total) / j.Total
}

// lost counts the machines that are TRUSTED and would not be.
func lost(list []api.ImpactMachine) int {
	n := 0
	for _, m := range list {
		if m.Now == appraise.Trusted && m.Then != appraise.Trusted {
			n++
		}
	}
	return n
}

func (c *call) jobs() error {
	ids := c.r.URL.Query()["id"]
	if len(ids) == 0 || len(ids) > maxJobs {
		return api.NewProblem(http.StatusBadRequest, "1 to %d jobs are shown at once", maxJobs)
	}
	d := jobsData{To: local(c.r.URL.Query().Get("to"))}
	for _, id := range ids {
		v, err := c.job(id)
		if err != nil {
			return err
		}
		if v.State == "queued" || v.State == "running" {
			d.Running++
		}
		d.Jobs = append(d.Jobs, v)
	}
	return c.show("jobs", "", map[bool]string{true: "Work under way", false: "Done"}[d.Running > 0], d)
}

func (c *call) job(id string) (jobView, error) {
	j, err := c.svc.Job(c.r.Context(), c.who, id)
	if err != nil {
		return jobView{}, err
	}
	v := jobView{Job: j}
	if j.State != "done" {
		return v, nil
	}
	switch j.Kind {
	case "impact":
		v.Impact = &api.Impact{}
		if err := json.Unmarshal(j.Result, v.Impact); err != nil {
			return jobView{}, err
		}
	case "attest":
		r, err := c.svc.Report(c.r.Context(), c.who, id)
		if err != nil {
			if p, ours := problem(err); ours || p.Status != http.StatusNotFound {
				return jobView{}, err
			}
			return v, nil
		}
		v.Report = r
	}
	return v, nil
}
