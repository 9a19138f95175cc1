package server

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// form is how an export is written.
type form int

const (
	asCSV form = iota
	asJSON
)

// table writes rows one after the other. What has begun and cannot be ended well breaks the connection, so that
// nobody takes a part for the whole.
type table struct {
	c     *call
	form  form
	csv   *csv.Writer
	n     int
	begun bool
}

func (t *table) begin(name string, head []string) error {
	kind, ext := api.TypeCSV, "csv"
	if t.form == asJSON {
		kind, ext = api.TypeJSON, "json"
	}
	h := t.c.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", `attachment; filename="`+name+"."+ext+`"`)
	t.begun = true
	if t.form == asJSON {
		return t.write("[")
	}
	t.csv = csv.NewWriter(t.c.w)
	return t.csv.Write(head)
}

func (t *table) write(s string) error {
	_, err := io.WriteString(t.c.w, s)
	return err
}

// row writes one item.
func (t *table) row(v any, cells ...string) error {
	if t.n++; t.n%rowsPerDeadline == 1 {
		_ = http.NewResponseController(t.c.w).SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	if t.form == asCSV {
		for i := range cells {
			cells[i] = cell(cells[i])
		}
		return t.csv.Write(cells)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sep := ",\n"
	if t.n == 1 {
		sep = "\n"
	}
	return t.write(sep + string(b))
}

// end closes the table. err is what went wrong before.
func (t *table) end(err error) error {
	if err != nil && !t.begun {
		return err
	}
	if err == nil && t.form == asJSON {
		err = t.write("\n]\n")
	}
	if t.csv != nil {
		t.csv.Flush()
		if err == nil {
			err = t.csv.Error()
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return nil
}

// cell makes text harmless for a spreadsheet and for whoever pastes it: what would be a formula begins with ', bytes
// and signs that cannot be seen or that begin a tag are shown as \xNN or \u{N}.
func cell(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case i == 0 && strings.ContainsRune("=+-@'", r):
			b.WriteByte('\'')
			b.WriteRune(r)
		case r == utf8.RuneError || r == '<' || r == '>' || r < ' ' || r == 0x7f:
			_, size := utf8.DecodeRuneInString(s[i:])
			for _, x := range []byte(s[i : i+size]) {
				fmt.Fprintf(&b, `\x%02x`, x)
			}
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// firstOf gives the code and text of the first reason.
func firstOf(r []appraise.Reason) (code, text string) {
	if len(r) == 0 {
		return "", ""
	}
	return string(r[0].Code), r[0].Text
}

// pages calls get for part after part, and each with every item.
func pages[T any](get func(api.Page) (*api.List[T], error), each func(T) error) error {
	for p := (api.Page{Limit: api.MaxPageSize}); ; {
		l, err := get(p)
		if err != nil {
			return err
		}
		for _, v := range l.Items {
			if err := each(v); err != nil {
				return err
			}
		}
		if l.Next == "" || len(l.Items) == 0 {
			return nil
		}
		p.Cursor = l.Next
	}
}

func (s *Server) exportVMs(f form) func(*call, *filterIn) error {
	return func(c *call, in *filterIn) error {
		t := &table{c: c, form: f}
		get := func(p api.Page) (*api.List[api.VM], error) {
			l, err := s.svc.VMs(c.r.Context(), c.who.caller(), in.filter(), p)
			if err == nil && !t.begun {
				err = t.begin("vms", []string{"uuid", "name", "host", "state", "code", "reason", "time", "expires", "scheme", "rim", "policy", "ima_entries", "report"})
			}
			return l, err
		}
		return t.end(pages(get, func(v api.VM) error {
			r := v.Result
			code, text := firstOf(r.Reasons)
			return t.row(v, v.UUID.String(), v.Name, v.Host, string(r.State), code, text, stamp(r.Time), stamp(r.Expires), r.Scheme.String(), r.RIM, r.Policy,
				fmt.Sprint(r.Entries), r.Report)
		}))
	}
}

func (s *Server) exportHosts(f form) func(*call, *filterIn) error {
	return func(c *call, in *filterIn) error {
		t := &table{c: c, form: f}
		get := func(p api.Page) (*api.List[api.Host], error) {
			l, err := s.svc.Hosts(c.r.Context(), c.who.caller(), in.filter(), p)
			if err == nil && !t.begun {
				err = t.begin("hosts", []string{"id", "name", "state", "code", "reason", "approved", "how", "online", "last_seen", "time", "expires", "rim", "policy", "ek_sha256", "report"})
			}
			return l, err
		}
		return t.end(pages(get, func(h api.Host) error {
			r := h.Result
			code, text := firstOf(r.Reasons)
			return t.row(h, h.ID, h.Name, string(r.State), code, text, fmt.Sprint(h.Approved), h.How, fmt.Sprint(h.Online), stamp(h.LastSeen), stamp(r.Time), stamp(r.Expires),
				r.RIM, r.Policy, h.EKSHA256, r.Report)
		}))
	}
}

type exportEventsIn struct {
	After   int64    `query:"after" doc:"ID of the last event that is known"`
	Kind    []string `query:"kind" doc:"kinds, between commas" one:"verdict,host,vm,document,settings,alert,replica,reconcile,action"`
	Machine string   `query:"machine" doc:"UUID of a VM or ID of a host"`
}

func (s *Server) exportEvents(f form) func(*call, *exportEventsIn) error {
	return func(c *call, in *exportEventsIn) error {
		t := &table{c: c, form: f}
		filter := api.EventFilter{After: in.After, Kinds: in.Kind, Machine: in.Machine, Limit: api.MaxEvents}
		get := func(api.Page) (*api.List[api.Event], error) {
			l, err := s.svc.Events(c.r.Context(), c.who.caller(), filter)
			if err != nil {
				return nil, err
			}
			if !t.begun {
				err = t.begin("events", []string{"id", "time", "kind", "machine", "name", "host", "state", "before", "code", "text", "report"})
			}
			out := &api.List[api.Event]{Items: l}
			if len(l) == filter.Limit {
				filter.After = l[len(l)-1].ID
				out.Next = number(filter.After)
			}
			return out, err
		}
		return t.end(pages(get, func(e api.Event) error {
			code, _ := firstOf(e.Reasons)
			return t.row(e, number(e.ID), stamp(e.Time), e.Kind, e.Machine, e.Name, e.Host, string(e.State), string(e.Before), code, e.Text, e.Report)
		}))
	}
}

// paced gives a writer more time with every write.
type paced struct{ w http.ResponseWriter }

func (p paced) Write(b []byte) (int, error) {
	_ = http.NewResponseController(p.w).SetWriteDeadline(time.Now().Add(writeTimeout))
	return p.w.Write(b)
}

// late sets an answer's headers with its first byte, so that an error before it can still be told.
type late struct {
	c     *call
	begun bool
}

func (l *late) Write(b []byte) (int, error) {
	if !l.begun {
		l.begun = true
		l.c.w.Header().Set("Content-Type", api.TypeLines)
		l.c.w.Header().Set("Content-Disposition", `attachment; filename="audit.jsonl"`)
	}
	return paced{l.c.w}.Write(b)
}

func (s *Server) exportAudit(c *call, _ *none) error {
	l := &late{c: c}
	err := s.svc.ExportAudit(c.r.Context(), c.who.caller(), l)
	if err != nil && l.begun {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	if err == nil && !l.begun {
		_, err = l.Write(nil)
	}
	return err
}
