package web

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// query is what a list's address asks for.
type query struct {
	path   string
	values url.Values
}

func (c *call) query() query { return query{c.r.URL.Path, c.r.URL.Query()} }

// with gives the list's address with a value changed, on its first page; "" takes the value away.
func (q query) with(key, value string) string {
	v := url.Values{}
	for k, list := range q.values {
		if !slices.Contains([]string{"cursor", "back", "from", "done", key}, k) {
			v[k] = list
		}
	}
	if value != "" {
		v.Set(key, value)
	}
	if len(v) == 0 {
		return q.path
	}
	return q.path + "?" + v.Encode()
}

// pager is where in a list one is.
type pager struct {
	First, Previous, Next string // addresses; "": there is none
	From, To, Total       int
}

// page says which part of the list is asked for.
func (q query) page() api.Page { return api.Page{Cursor: q.values.Get("cursor"), Limit: rows} }

// pager makes the links around the part that was got. Lists give the cursor of what follows only, so the address
// carries those of the last few pages.
func (q query) pager(shown, total int, next string) pager {
	from, err := strconv.Atoi(q.values.Get("from"))
	if err != nil || from < 0 || from > total {
		from = 0
	}
	p := pager{From: min(from+1, total), To: from + shown, Total: total}
	back := q.values["back"]
	cursor := q.values.Get("cursor")
	if cursor != "" {
		p.First = q.with("", "")
	}
	if n := len(back); n > 0 {
		p.Previous = q.at(back[n-1], back[:n-1], from-rows)
	}
	if next != "" {
		back = append(slices.Clip(back), cursor)
		p.Next = q.at(next, back[max(0, len(back)-maxBack):], from+shown)
	}
	return p
}

func (q query) at(cursor string, back []string, from int) string {
	v := url.Values{}
	for k, list := range q.values {
		v[k] = list
	}
	v.Del("done")
	v.Set("cursor", cursor)
	v.Set("from", strconv.Itoa(max(from, 0)))
	v["back"] = back
	if cursor == "" {
		v.Del("cursor")
	}
	return q.path + "?" + v.Encode()
}

// chip is a filter by one state, with how many machines it selects.
type chip struct {
	State appraise.State
	Count int
	On    bool
	URL   string
}

// filter reads which machines are asked for.
func (q query) filter() (api.MachineFilter, error) {
	f := api.MachineFilter{Host: q.values.Get("host"), Tenant: q.values.Get("tenant"), Text: strings.TrimSpace(q.values.Get("q"))}
	if len(f.Host)+len(f.Tenant)+len(f.Text) > maxQuery {
		return f, api.NewProblem(http.StatusBadRequest, "what is searched for is over %d bytes", maxQuery)
	}
	for _, s := range q.values["state"] {
		if !slices.Contains(states(), appraise.State(s)) {
			return f, api.NewProblem(http.StatusBadRequest, "there is no such state")
		}
		f.States = append(f.States, appraise.State(s))
	}
	return f, nil
}

// chips makes the filters by state. count tells how many machines a filter selects.
func (q query) chips(f api.MachineFilter, whole api.Counts, count func(api.MachineFilter) (int, error)) ([]chip, error) {
	narrowed := f.Host != "" || f.Tenant != "" || f.Text != ""
	var out []chip
	for _, s := range states() {
		k := chip{State: s, On: slices.Contains(f.States, s), Count: whole[s], URL: q.with("state", string(s))}
		if narrowed && whole[s] > 0 {
			one := f
			one.States = []appraise.State{s}
			n, err := count(one)
			if err != nil {
				return nil, err
			}
			k.Count = n
		}
		if k.On {
			k.URL = q.with("state", "")
		}
		if k.Count > 0 || k.On {
			out = append(out, k)
		}
	}
	return out, nil
}

// byGravity gives one page of a list ordered by state, the gravest first: get is asked for one state after the other. A
// cursor is the state's number and the cursor within it.
func byGravity[T any](f api.MachineFilter, p api.Page, get func(api.MachineFilter, api.Page) (*api.List[T], error)) (*api.List[T], error) {
	order := states()
	if len(f.States) > 0 {
		order = slices.DeleteFunc(order, func(s appraise.State) bool { return !slices.Contains(f.States, s) })
	}
	start, inner, _ := strings.Cut(p.Cursor, ".")
	at, err := strconv.Atoi(start)
	if p.Cursor != "" && (err != nil || at < 0 || at >= len(order)) {
		return nil, api.NewProblem(http.StatusBadRequest, "this is no cursor of this list")
	}
	out := &api.List[T]{}
	whole, err := get(f, api.Page{Limit: 1})
	if err != nil {
		return nil, err
	}
	out.Total = whole.Total
	for ; at < len(order); at++ {
		one, left := f, p.Limit-len(out.Items)
		one.States = []appraise.State{order[at]}
		l, err := get(one, api.Page{Cursor: inner, Limit: max(left, 1)})
		switch {
		case err != nil:
			return nil, err
		case left == 0 && len(l.Items) > 0: // the page is full, and here it goes on
			out.Next = strconv.Itoa(at) + "." + inner
			return out, nil
		case left == 0:
			continue
		}
		out.Items, inner = append(out.Items, l.Items...), l.Next
		if inner != "" {
			at-- // more of this state
		}
	}
	return out, nil
}
