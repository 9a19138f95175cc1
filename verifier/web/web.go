package web

import (
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"virt-attest/verifier/api"
)

// Options are what the page needs besides the service.
type Options struct {
	// Caller tells who asks, or false where nobody has logged in. nil: api.CallerOf the request's context.
	Caller  func(*http.Request) (api.Caller, bool)
	OpenAPI []byte // the REST interface's description, for the page that lists it
	Events  string // path of the event stream; "": /api/v1/events
	Version string // of this program
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// ui is the page.
type ui struct {
	svc   api.Service
	opts  Options
	pages map[string]*template.Template
	files map[string]asset
	mux   *http.ServeMux
}

// New makes the page. It is to be served at the root, beside the API below /api/; every answer has the content
// security policy, and what changes something is refused where it comes from another site. POST /login and POST /logout are for whoever
// serves the page: it makes sessions. An error is a fault of
// what is embedded.
func New(svc api.Service, opts Options) (http.Handler, error) {
	u := &ui{svc: svc, opts: opts, mux: http.NewServeMux()}
	if u.opts.Caller == nil {
		u.opts.Caller = func(r *http.Request) (api.Caller, bool) { return api.CallerOf(r.Context()) }
	}
	if u.opts.Events == "" {
		u.opts.Events = "/api/v1/events"
	}
	if u.opts.Log == nil {
		u.opts.Log = slog.New(slog.DiscardHandler)
	}
	if u.opts.Now == nil {
		u.opts.Now = time.Now
	}
	var err error
	if u.files, err = loadAssets(); err != nil {
		return nil, err
	}
	if u.pages, err = u.loadPages(); err != nil {
		return nil, err
	}
	for _, rt := range u.routes() {
		u.mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) { u.serve(w, r, rt) })
	}
	u.mux.HandleFunc("GET /static/{file}", u.static)
	return guard(http.NewCrossOriginProtection().Handler(u.mux)), nil
}

// policy lets a browser load from here only, and run and style with files only.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard puts the headers that every answer has.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// call is one request of somebody who may make it.
type call struct {
	*ui
	w   http.ResponseWriter
	r   *http.Request
	who api.Caller
}

// serve does one request of a route.
func (u *ui) serve(w http.ResponseWriter, r *http.Request, rt route) {
	c := &call{ui: u, w: w, r: r}
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			u.opts.Log.Error("panic in a page", "route", rt.pattern, "panic", p)
			c.fail(api.NewProblem(http.StatusInternalServerError, "the Verifier failed; its journal has the cause"))
		}
	}()
	who, ok := u.opts.Caller(r)
	c.who = who
	switch {
	case rt.access == anyone:
	case !ok:
		c.askLogin()
		return
	case !rt.access.has(who):
		c.fail(api.NewProblem(http.StatusForbidden, "%s is a %s, and this needs more", plain(who.Name, maxName), who.Role))
		return
	}
	if r.Method == http.MethodPost {
		if err := c.readForm(rt.upload); err != nil {
			c.fail(err)
			return
		}
	}
	if err := rt.handle(c); err != nil {
		c.fail(err)
	}
}

// readForm reads a form within its bounds.
func (c *call) readForm(limit int64) error {
	if limit == 0 {
		limit = maxForm
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, limit)
	err := c.r.ParseForm() // first, by itself: ParseMultipartForm drops its error
	if err == nil {
		err = c.r.ParseMultipartForm(limit)
	}
	if errors.Is(err, http.ErrNotMultipart) {
		err = nil
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return api.NewProblem(http.StatusRequestEntityTooLarge, "this form is over %s", size(int(limit)))
	}
	if err != nil {
		return api.NewProblem(http.StatusBadRequest, "this form cannot be read")
	}
	for k, v := range c.r.PostForm {
		if len(v) > maxFields {
			return api.NewProblem(http.StatusBadRequest, "more than %d values of %q", maxFields, plain(k, maxName))
		}
	}
	return nil
}

// see sends the browser to a page of this site.
func (c *call) see(path string) error {
	http.Redirect(c.w, c.r, path, http.StatusSeeOther)
	return nil
}

// asset is an embedded file.
type asset struct {
	content []byte
	kind    string
	tag     string
}

// static gives an embedded file. Its address has its tag, so that it may be kept.
func (u *ui) static(w http.ResponseWriter, r *http.Request) {
	f, ok := u.files[r.PathValue("file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("ETag", `"`+f.tag+`"`)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	if r.URL.Query().Get("v") != f.tag {
		h.Set("Cache-Control", "no-cache")
	}
	if r.Header.Get("If-None-Match") == `"`+f.tag+`"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(f.content)
}
