package web

import (
	"net/http"
	"net/url"
)

// themeCookie is the cookie with the theme that a browser's user has chosen.
const themeCookie = "virt-attest-theme"

// askLogin sends a browser to the login page, and back afterwards.
func (c *call) askLogin() {
	to := "/login"
	if c.r.Method == http.MethodGet && c.r.URL.Path != "/" {
		to += "?next=" + url.QueryEscape(c.r.URL.RequestURI())
	}
	if c.r.Header.Get("HX-Request") != "" {
		c.w.Header().Set("HX-Redirect", "/login")
		c.w.WriteHeader(http.StatusUnauthorized)
		return
	}
	http.Redirect(c.w, c.r, to, http.StatusSeeOther)
}

// loginData is what the login page shows.
type loginData struct {
	Next  string
	Error string
}

// loginPage shows the form; its token is taken by whoever serves the page (verifier/server), which sends a browser back
// here with a word for what went wrong.
func (c *call) loginPage() error {
	d := loginData{Next: local(c.r.URL.Query().Get("next"))}
	switch c.r.URL.Query().Get("error") {
	case "refused":
		d.Error = "This token is not known, was used up, or has expired."
	case "busy":
		d.Error = "Too many wrong tokens came from your address. Wait a minute."
	case "failed":
		d.Error = "The Verifier could not look at the token: that is its own fault, and its journal has the cause."
	}
	return c.show("login", "", "Log in", d)
}

// theme is how the browser wants the page: "light", "dark", or "" as its system has it.
func theme(r *http.Request) string {
	k, err := r.Cookie(themeCookie)
	if err != nil || k.Value != "light" && k.Value != "dark" {
		return ""
	}
	return k.Value
}

func (c *call) setTheme() error {
	age := int(remembered.Seconds())
	t := c.r.PostFormValue("theme")
	if t != "light" && t != "dark" {
		t, age = "", -1
	}
	//nolint:gosec // Secure wherever the page came by TLS; without it is on this machine only
	http.SetCookie(c.w, &http.Cookie{Name: themeCookie, Value: t, Path: "/", MaxAge: age, HttpOnly: true, Secure: c.r.TLS != nil, SameSite: http.SameSiteLaxMode})
	return c.see(local(c.r.PostFormValue("back")))
}
