package web

import (
	"net/http"
	"net/url"
	"strings"

	"virt-attest/verifier/api"
)

// SessionCookie is the cookie with a browser's session, which api.Service.Authenticate knows.
const SessionCookie = "virt_attest_session"

const themeCookie = "virt_attest_theme"

// Session gives the secret that a request shows: its session cookie, or its bearer token.
func Session(r *http.Request) (string, bool) {
	if t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && t != "" {
		return t, true
	}
	k, err := r.Cookie(SessionCookie)
	if err != nil || k.Value == "" {
		return "", false
	}
	return k.Value, true
}

func (u *ui) bySession(r *http.Request) (api.Caller, bool) {
	secret, ok := Session(r)
	if !ok {
		return api.Caller{}, false
	}
	who, err := u.svc.Authenticate(r.Context(), secret)
	return who, err == nil
}

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

func (c *call) loginPage() error {
	return c.show("login", "", "Log in", loginData{Next: local(c.r.URL.Query().Get("next"))})
}

func (c *call) login() error {
	next := local(c.r.PostFormValue("next"))
	secret := strings.TrimSpace(c.r.PostFormValue("token"))
	token, who, err := c.svc.Login(c.r.Context(), secret)
	if err != nil {
		p, ours := problem(err)
		if ours && p.Status != http.StatusServiceUnavailable {
			return err
		}
		said := "This token is not known, was used up, or has expired."
		if ours {
			said = "The Verifier's database does not answer. Try again."
		}
		return c.showStatus(http.StatusUnauthorized, "login", "", "Log in", loginData{Next: next, Error: said})
	}
	c.opts.Log.Info("logged in", "who", who.Name, "role", who.Role)
	http.SetCookie(c.w, c.cookie(SessionCookie, token, int(session.Seconds())))
	return c.see(next)
}

func (c *call) logout() error {
	if k, err := c.r.Cookie(SessionCookie); err == nil {
		if err := c.svc.Logout(c.r.Context(), k.Value); err != nil {
			return err
		}
	}
	http.SetCookie(c.w, c.cookie(SessionCookie, "", -1))
	return c.see("/login")
}

// cookie makes a cookie that scripts cannot read, and that goes over TLS only where it came that way.
func (c *call) cookie(name, value string, age int) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: c.r.TLS != nil, SameSite: http.SameSiteLaxMode}
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
	http.SetCookie(c.w, c.cookie(themeCookie, t, age))
	return c.see(local(c.r.PostFormValue("back")))
}
