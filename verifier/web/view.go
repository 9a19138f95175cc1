package web

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/engine"
)

// view is what every page's template gets.
type view struct {
	Title   string
	Section string // of the menu
	Who     api.Caller
	In      bool // somebody is logged in
	Theme   string
	URL     string // of this page
	Events  string // path of the event stream
	Notice  string // of what was just done
	Version string
	Now     time.Time
	Data    any
}

// Attester, Operator and Admin say what the caller may do, for templates that offer it.
func (v *view) Attester() bool { return attesters.has(v.Who) }

// Operator says whether the caller may change what machines are compared with.
func (v *view) Operator() bool { return operators.has(v.Who) }

// Admin says whether the caller may do everything.
func (v *view) Admin() bool { return admins.has(v.Who) }

// Viewer says whether the caller may see more than VMs.
func (v *view) Viewer() bool { return viewers.has(v.Who) }

// Whole says whether the caller sees every tenant.
func (v *view) Whole() bool { return v.Who.Tenant == "" && viewers.has(v.Who) }

// show writes a page.
func (c *call) show(page, section, title string, data any) error {
	return c.showStatus(http.StatusOK, page, section, title, data)
}

func (c *call) showStatus(status int, page, section, title string, data any) error {
	v := &view{Title: title, Section: section, Who: c.who, In: c.who.Name != "", Theme: theme(c.r), URL: c.r.URL.RequestURI(),
		Events: c.opts.Events, Notice: notices(c.r.URL.Query().Get("done")), Version: c.opts.Version, Now: c.opts.Now(), Data: data}
	if c.r.Method != http.MethodGet {
		v.URL = "/"
	}
	var b bytes.Buffer
	if err := c.pages[page].ExecuteTemplate(&b, "frame", v); err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	c.w.WriteHeader(status)
	_, _ = b.WriteTo(c.w) // a browser that has gone needs no answer
	return nil
}

// notices gives the sentence about what was just done. The address carries its key only: nobody can make a link
// that says something else here.
func notices(key string) string {
	switch key {
	case "approved":
		return "The host is approved. Its VMs can be attested now."
	case "deleted":
		return "It is gone."
	case "saved":
		return "Saved."
	case "suspended":
		return "It is not attested by schedule until it is resumed."
	case "resumed":
		return "It is attested by schedule again."
	case "acked":
		return "The alert is acknowledged."
	case "activated":
		return "The version is active. Machines that use it are appraised again now."
	case "tested":
		return "The test event was sent; what came of it is in the table."
	case "draft":
		return "A new version was made. Nothing changes until it is activated."
	}
	return ""
}

// problem gives an error as people may see it, and whether it is a fault of ours.
func problem(err error) (p *api.Problem, ours bool) {
	if errors.As(err, &p) {
		return p, p.Status >= 500
	}
	for _, k := range []struct {
		is     error
		status int
	}{
		{engine.ErrNotFound, http.StatusNotFound}, {engine.ErrConflict, http.StatusConflict}, {engine.ErrInvalid, http.StatusBadRequest},
		{engine.ErrForbidden, http.StatusForbidden}, {engine.ErrGone, http.StatusGone}, {engine.ErrBusy, http.StatusTooManyRequests},
		{engine.ErrUnavailable, http.StatusServiceUnavailable}, {context.DeadlineExceeded, http.StatusServiceUnavailable}, {context.Canceled, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, k.is) {
			return api.NewProblem(k.status, "%s", err.Error()), k.status >= 500
		}
	}
	return api.NewProblem(http.StatusInternalServerError, "the Verifier failed; its journal has the cause"), true
}

// fail writes an error as a page.
func (c *call) fail(err error) {
	p, ours := problem(err)
	if ours {
		c.opts.Log.Error("a page failed", "path", c.r.URL.Path, "err", err)
		if p.Status == http.StatusServiceUnavailable {
			p = api.NewProblem(p.Status, "the Verifier cannot answer now: its database or its workers did not answer in time")
		}
	}
	if err := c.showStatus(p.Status, "error", "", p.Title, p); err != nil {
		c.opts.Log.Error("the page of an error failed", "err", err)
		http.Error(c.w, p.Title, p.Status)
	}
}

// local gives a path of this site, or "/" for anything else: a browser takes //host and /\host for other sites.
func local(path string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return "/"
	}
	if u, err := url.Parse(path); err != nil || u.Host != "" || u.Scheme != "" {
		return "/"
	}
	return path
}

// download gives a file to keep.
func (c *call) download(kind, file string, content []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", `attachment; filename="`+fileName(file)+`"`)
	_, _ = c.w.Write(content)
	return nil
}

// fileName keeps what is safe in a file's name everywhere.
func fileName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_' {
			return r
		}
		return '_'
	}, s)
}
