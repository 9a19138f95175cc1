package store_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"virt-attest/attest"
	"virt-attest/internal/pgtest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, c store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func each(t *testing.T, f func(t *testing.T, s *store.Store)) {
	t.Run(store.SQLite, func(t *testing.T) { f(t, open(t, store.Config{Path: filepath.Join(t.TempDir(), "v.db")})) })
	t.Run(store.Postgres, func(t *testing.T) { f(t, open(t, store.Config{URL: pgtest.URL(t)})) })
}

type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

func ok(t fatal, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// world is hosts with VMs in every state, made by chance.
type world struct {
	t       *rapid.T
	s       *store.Store
	prefix  string
	n       int
	at      time.Time
	changed []string
}

func (w *world) state(what string) appraise.State {
	return rapid.SampledFrom([]appraise.State{appraise.Trusted, appraise.Trusted, appraise.Trusted, appraise.Untrusted, appraise.Rollback, appraise.Unconfigured,
		appraise.Unreachable, appraise.Error, appraise.Pending}).Draw(w.t, what)
}

func (w *world) result(vm attest.UUID, host, name string) appraise.Result {
	r := appraise.Result{UUID: vm, Name: name, Host: host, State: w.state("state of " + name), Reasons: []appraise.Reason{}, Scheme: attest.SchemeSEPA, Time: w.at,
		Expires: w.at.Add(time.Duration(rapid.IntRange(-1, 2).Draw(w.t, "expires")) * time.Minute), Report: fmt.Sprintf("%s-%s", w.prefix, host)}
	if r.State != appraise.Trusted {
		r.Reasons = []appraise.Reason{{Code: appraise.CodeIMADigest, Text: "why"}}
	}
	return r
}

func (w *world) host(t fatal, ctx *testing.T) {
	w.n++
	id := fmt.Sprintf("%s%031d", w.prefix, w.n)
	h := &store.Host{ID: id, Name: fmt.Sprintf("host%d", rapid.IntRange(1, 3).Draw(w.t, "name")), LastSeen: w.at}
	if rapid.Bool().Draw(w.t, "approved") {
		h.How = store.ByOperator
	}
	var claims []store.Claim
	var results []appraise.Result
	for i := range rapid.IntRange(0, 3).Draw(w.t, "vms") {
		vm := attest.UUID{0: w.prefix[0], 1: byte(w.n), 2: byte(i), 15: 1}
		name := fmt.Sprintf("vm%d", rapid.IntRange(1, 4).Draw(w.t, "vm"))
		claims = append(claims, store.Claim{UUID: vm, Host: id, Name: name})
		if rapid.Bool().Draw(w.t, "tenant") {
			ok(t, w.s.PutSettings(ctx.Context(), vm.String(), api.Settings{Tenant: w.prefix + "blue"}, store.Trail{}))
		}
		if rapid.Bool().Draw(w.t, "attested") {
			results = append(results, w.result(vm, id, name))
			if rapid.IntRange(0, 3).Draw(w.t, "outdated") == 0 {
				w.changed = append(w.changed, vm.String())
			}
		}
	}
	ok(t, w.s.PutHost(ctx.Context(), h, claims, ""))
	if len(results) > 0 || rapid.Bool().Draw(w.t, "host attested") {
		own := w.result(attest.UUID{}, id, h.Name)
		if rapid.IntRange(0, 3).Draw(w.t, "host outdated") == 0 {
			w.changed = append(w.changed, id)
		}
		ok(t, w.s.Commit(ctx.Context(), &store.Outcome{Host: id, Created: w.at, Report: &api.Report{ID: fmt.Sprintf("%s-%s-%d", w.prefix, id, w.at.Unix()), Scheme: attest.SchemeSEPA, Host: own, VMs: results}}))
	}
}

// now is what evaluate says of a row: the engine's answers about single machines.
func now(r *store.Record, at time.Time) appraise.State {
	res, h := r.Result, r.Host
	if r.Outdated {
		res = evaluate.Outdated(res, at)
	}
	if r.HostOutdated {
		h = evaluate.Outdated(h, at)
	}
	return evaluate.Current(res, evaluate.Current(h, h, at), at).State
}

// Lists are made in SQL, details by evaluate: they must never contradict each other.
func TestPages_say_of_every_machine_what_evaluate_says(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store) {
		run := 0
		rapid.Check(t, func(rt *rapid.T) {
			run++
			w := &world{t: rt, s: s, prefix: string(rune('a' + run%26)), at: start.Add(time.Duration(run) * time.Hour)}
			for _, h := range all(rt, t, s) { // the world of the run before
				ok(rt, s.DeleteHost(t.Context(), h.Host.ID, store.Trail{}))
			}
			for range rapid.IntRange(1, 3).Draw(rt, "hosts") {
				w.host(rt, t)
			}
			for _, m := range w.changed {
				set, err := s.Settings(t.Context(), m)
				ok(rt, err)
				set.Policy = ""
				_, err = s.PutVersion(t.Context(), store.NewVersion{Kind: api.DocPolicy, Name: "p" + m, SHA256: "00", Created: w.at, Activate: true}, store.Trail{})
				ok(rt, err)
				set.Policy = "p" + m
				ok(rt, s.PutSettings(t.Context(), m, set, store.Trail{}))
			}
			compare(rt, t, s, w)
		})
	})
}

func all(rt fatal, t *testing.T, s *store.Store) []store.HostRow {
	l, err := s.HostPage(t.Context(), api.MachineFilter{}, "", api.Page{Limit: 1000}, start)
	ok(rt, err)
	return l.Items
}

func compare(rt *rapid.T, t *testing.T, s *store.Store, w *world) {
	var vms []store.VMRow
	want := map[string]api.Counts{"": {}, w.prefix + "blue": {}}
	for page := (api.Page{Limit: 2}); ; {
		l, err := s.VMPage(t.Context(), api.MachineFilter{}, "", page, w.at)
		ok(rt, err)
		vms = append(vms, l.Items...)
		if page.Cursor = l.Next; page.Cursor == "" {
			if l.Total != len(vms) {
				rt.Fatalf("a total of %d, and %d VMs", l.Total, len(vms))
			}
			break
		}
	}
	for i := range vms {
		if got := now(&vms[i].Record, w.at); got != vms[i].State {
			rt.Fatalf("%s is %s in lists and %s by evaluate: %+v", vms[i].Name, vms[i].State, got, vms[i])
		}
		want[""][vms[i].State]++
		if vms[i].Tenant != "" {
			want[vms[i].Tenant][vms[i].State]++
		}
	}
	if !slices.IsSortedFunc(vms, func(a, b store.VMRow) int {
		return slices.Compare([]string{a.Name, a.UUID, a.Host}, []string{b.Name, b.UUID, b.Host})
	}) {
		rt.Fatalf("not sorted: %+v", vms)
	}
	for tenant, n := range want {
		_, got, err := s.Counts(t.Context(), tenant, w.at)
		ok(rt, err)
		if fmt.Sprint(got) != fmt.Sprint(n) {
			rt.Fatalf("tenant %q: counted %v, want %v", tenant, got, n)
		}
		for state, k := range n {
			l, err := s.VMPage(t.Context(), api.MachineFilter{States: []appraise.State{state}}, tenant, api.Page{}, w.at)
			ok(rt, err)
			if l.Total != k || len(l.Items) != k {
				rt.Fatalf("tenant %q has %d VMs that are %s, want %d", tenant, l.Total, state, k)
			}
		}
	}
	for _, h := range all(rt, t, s) {
		row := h.Record
		state := appraise.Pending
		if h.Host.How != "" && row.Attested {
			state = now(&row, w.at)
		}
		rows, err := s.HostRows(t.Context(), []string{h.Host.ID}, w.at)
		ok(rt, err)
		if len(rows) != 1 || rows[0].State != state {
			rt.Fatalf("host %s is %s in lists and %s by evaluate", h.Host.Name, rows[0].State, state)
		}
	}
}

func TestVMPage_finds_by_name_UUID_and_host(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store) {
		claim := func(n byte, host, name string) store.Claim {
			return store.Claim{UUID: attest.UUID{0: 0xab, 15: n}, Host: host, Name: name}
		}
		ok(t, s.PutHost(t.Context(), &store.Host{ID: "h1", Name: "alpha", LastSeen: start}, []store.Claim{claim(1, "h1", "Web-1"), claim(2, "h1", "100%_db")}, ""))
		ok(t, s.PutHost(t.Context(), &store.Host{ID: "h2", Name: "beta", LastSeen: start}, []store.Claim{claim(3, "h2", "web-2")}, ""))
		find := func(f api.MachineFilter) string {
			l, err := s.VMPage(t.Context(), f, "", api.Page{}, start)
			ok(t, err)
			var names []string
			for _, v := range l.Items {
				names = append(names, v.Name)
			}
			return strings.Join(names, " ")
		}
		for _, c := range []struct {
			f    api.MachineFilter
			want string
		}{
			{api.MachineFilter{}, "100%_db Web-1 web-2"}, {api.MachineFilter{Text: "WEB"}, "Web-1 web-2"}, {api.MachineFilter{Text: "%"}, "100%_db"},
			{api.MachineFilter{Text: "_"}, "100%_db"}, {api.MachineFilter{Text: `\`}, ""}, {api.MachineFilter{Text: "AB000000-0000-0000-0000-00000000000"}, "100%_db Web-1 web-2"},
			{api.MachineFilter{Text: "'; DROP TABLE results; --"}, ""}, {api.MachineFilter{Host: "beta"}, "web-2"}, {api.MachineFilter{Host: "h1"}, "100%_db Web-1"},
			{api.MachineFilter{Tenant: "blue"}, ""}, {api.MachineFilter{States: []appraise.State{appraise.Pending}}, "100%_db Web-1 web-2"},
			{api.MachineFilter{States: []appraise.State{appraise.Trusted, appraise.Stale}}, ""},
		} {
			if got := find(c.f); got != c.want {
				t.Errorf("%+v finds %q, want %q", c.f, got, c.want)
			}
		}
		_, err := s.VMPage(t.Context(), api.MachineFilter{}, "", api.Page{Cursor: "rubbish"}, start)
		if err == nil {
			t.Error("rubbish is a cursor")
		}
	})
}
