package web

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"virt-attest/docs"
	"virt-attest/verifier/api"
)

// settingsData is who may come in, and the processes that serve.
type settingsData struct {
	Replicas []api.Replica
	Tokens   []api.Token
	Enrol    []api.EnrolToken
	NewToken *api.Token // with its secret, which is shown once
	NewEnrol *api.EnrolToken
	Roles    []api.Role
}

func (c *call) settings() error { return c.showSettings(settingsData{}) }

func (c *call) showSettings(d settingsData) error {
	ctx := c.r.Context()
	d.Roles = []api.Role{api.RoleViewer, api.RoleScheduler, api.RoleOperator, api.RoleAdmin}
	var err error
	if c.who.Tenant == "" {
		if d.Replicas, err = c.svc.Replicas(ctx, c.who); err != nil {
			return err
		}
	}
	if admins.has(c.who) {
		if d.Tokens, err = c.svc.Tokens(ctx, c.who); err != nil {
			return err
		}
		if d.Enrol, err = c.svc.EnrolTokens(ctx, c.who); err != nil {
			return err
		}
	}
	return c.show("settings", "settings", "Settings", d)
}

// newToken makes a bearer token; the answer is the page with its secret.
func (c *call) newToken() error {
	days, err := strconv.Atoi(c.r.PostFormValue("days"))
	if err != nil || days < 1 || days > 366 {
		return api.NewProblem(http.StatusBadRequest, "a token lives 1 to 366 days")
	}
	t, err := c.svc.NewToken(c.r.Context(), c.who, api.TokenRequest{
		Name: strings.TrimSpace(c.r.PostFormValue("name")), Role: api.Role(c.r.PostFormValue("role")),
		Tenant: strings.TrimSpace(c.r.PostFormValue("tenant")), TTL: float64(days) * 86400})
	if err != nil {
		return err
	}
	return c.showSettings(settingsData{NewToken: t})
}

func (c *call) deleteToken() error {
	if err := c.svc.DeleteToken(c.r.Context(), c.who, c.r.PathValue("id")); err != nil {
		return err
	}
	return c.see("/settings?done=deleted")
}

func (c *call) newEnrolToken() error {
	hours, err := strconv.Atoi(c.r.PostFormValue("hours"))
	if err != nil || hours < 1 || hours > 24*366 {
		return api.NewProblem(http.StatusBadRequest, "an enrolment token lives 1 to 8784 hours")
	}
	t, err := c.svc.NewEnrolToken(c.r.Context(), c.who, strings.TrimSpace(c.r.PostFormValue("name")), float64(hours)*3600)
	if err != nil {
		return err
	}
	return c.showSettings(settingsData{NewEnrol: t})
}

func (c *call) deleteEnrolToken() error {
	if err := c.svc.DeleteEnrolToken(c.r.Context(), c.who, c.r.PathValue("id")); err != nil {
		return err
	}
	return c.see("/settings?done=deleted")
}

// apiRoute is one operation of the REST interface.
type apiRoute struct{ Method, Path, Summary, Description string }

// apiRoutes reads the operations out of an OpenAPI document.
func apiRoutes(doc []byte) ([]apiRoute, error) {
	var d struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if len(doc) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		return nil, err
	}
	methods := []string{"get", "post", "put", "patch", "delete"}
	var out []apiRoute
	for path, ops := range d.Paths {
		for m, raw := range ops {
			if !slices.Contains(methods, m) {
				continue // parameters and the like
			}
			var op struct {
				Summary     string `json:"summary"`
				Description string `json:"description"`
			}
			if err := json.Unmarshal(raw, &op); err != nil {
				return nil, err
			}
			out = append(out, apiRoute{strings.ToUpper(m), path, op.Summary, op.Description})
		}
	}
	slices.SortFunc(out, func(a, b apiRoute) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), slices.Index(methods, strings.ToLower(a.Method))-slices.Index(methods, strings.ToLower(b.Method)))
	})
	return out, nil
}

func (c *call) apiHelp() error {
	list, err := apiRoutes(c.opts.OpenAPI)
	if err != nil {
		return err
	}
	return c.show("api", "api", "API", list)
}

// topic is one reason as docs/reasons.md explains it.
type topic struct {
	Code, Section string
	Text, Do      []string // paragraphs, with words between backquotes
}

// reasonTopics reads docs/reasons.md.
func reasonTopics() []topic {
	var out []topic
	section, do := "", false
	for block := range strings.SplitSeq(docs.Reasons, "\n") {
		switch {
		case strings.HasPrefix(block, "## "):
			section = strings.TrimPrefix(block, "## ")
		case strings.HasPrefix(block, "### `"):
			out, do = append(out, topic{Code: strings.Trim(strings.TrimPrefix(block, "### "), "`"), Section: section}), false
		case block == "" || len(out) == 0:
		case strings.HasPrefix(block, "**Do:** "):
			do = true
			out[len(out)-1].Do = append(out[len(out)-1].Do, strings.TrimPrefix(block, "**Do:** "))
		case do:
			out[len(out)-1].Do = append(out[len(out)-1].Do, block)
		default:
			out[len(out)-1].Text = append(out[len(out)-1].Text, block)
		}
	}
	return out
}

func (c *call) reasonsHelp() error { return c.show("reasons", "reasons", "Reasons", reasonTopics()) }
