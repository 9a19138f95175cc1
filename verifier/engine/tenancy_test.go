package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// asTenant calls a method of api.Service with who, and with what belongs to somebody else wherever an argument names
// something. It gives all that came back, as JSON.
func asTenant(t *testing.T, r *replica, m reflect.Method, who api.Caller, named map[string]string) (answer string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	args := []reflect.Value{reflect.ValueOf(r.Engine), reflect.ValueOf(ctx)}
	var written bytes.Buffer
	var events []api.Event
	texts := []string{named["machine"]}
	if strings.Contains(m.Name, "Report") || m.Name == "Reverify" || m.Name == "Job" {
		texts[0] = named["report"]
	}
	if m.Name == "Reports" {
		texts[0] = named["machine"]
	}
	for i := 2; i < m.Type.NumIn(); i++ {
		in := m.Type.In(i)
		switch in {
		case reflect.TypeFor[api.Caller]():
			args = append(args, reflect.ValueOf(who))
			continue
		case reflect.TypeFor[io.Writer]():
			args = append(args, reflect.ValueOf(&written))
			continue
		case reflect.TypeFor[func(api.Event) error]():
			args = append(args, reflect.ValueOf(func(e api.Event) error { events = append(events, e); return nil }))
			continue
		}
		v := reflect.New(in).Elem()
		switch in.Kind() {
		case reflect.String:
			if in == reflect.TypeFor[api.DocKind]() {
				v.SetString(string(api.DocRIM))
			} else {
				v.SetString(texts[0])
			}
		case reflect.Int, reflect.Int64:
			v.SetInt(1)
			if m.Name == "Stats" {
				v.SetInt(60)
			}
		case reflect.Float64:
			v.SetFloat(60)
		case reflect.Struct:
			fill(v, named)
		}
		args = append(args, v)
	}
	out := m.Func.Call(args)
	var all []any
	for _, o := range out[:len(out)-1] {
		all = append(all, o.Interface())
	}
	all = append(all, events, written.String())
	b, err := json.Marshal(all)
	must(t, err)
	if e, ok := out[len(out)-1].Interface().(error); ok {
		return string(b), e
	}
	return string(b), nil
}

// fill names what is somebody else's in a request.
func fill(v reflect.Value, named map[string]string) {
	for i := range v.NumField() {
		f := v.Field(i)
		switch name := v.Type().Field(i).Name; {
		case f.Kind() == reflect.Struct && name == "Page":
		case f.Kind() == reflect.String && (name == "VM" || name == "Machine"):
			f.SetString(named["machine"])
		case f.Kind() == reflect.Slice && name == "VMs" && f.Type().Elem().Kind() == reflect.String:
			f.Set(reflect.ValueOf([]string{named["machine"]}))
		case name == "Scheme" && f.Type() == reflect.TypeFor[attest.Scheme]():
			f.Set(reflect.ValueOf(attest.SchemeSEPA))
		case f.Kind() == reflect.Float64 && name == "MaxAge":
			f.SetFloat(60)
		}
	}
}

func TestService_never_shows_a_tenant_what_is_another_tenants(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	ctx := t.Context()
	mine, theirs := newVM(1), newVM(2)
	theirs.Name = "their-secret-vm"
	h := w.host("h1", mine, theirs)
	must(t, r.PutSettings(ctx, operator(), mine.UUID.String(), api.Settings{RIMs: []string{"good"}, Tenant: "me"}))
	w.put(r, api.DocRIM, "their-reference-values", rimWith(t, "their-reference-values", changeNothing), true)
	must(t, r.PutSettings(ctx, operator(), theirs.UUID.String(), api.Settings{RIMs: []string{"good", "their-reference-values"}, Tenant: "them"}))
	h.IMA.File("/usr/bin/odd-on-the-host", "odd")
	rep := r.attest(t, attest.SchemeSEPA, h.ID())
	r.settled(w)
	who := api.Caller{Name: "token:me", Role: api.RoleOperator, Tenant: "me"}

	methods, answered := reflect.TypeFor[*Engine](), 0
	service := reflect.TypeFor[api.Service]()
	for i := range service.NumMethod() {
		m, ok := methods.MethodByName(service.Method(i).Name)
		if !ok {
			t.Fatalf("no method %s", service.Method(i).Name)
		}
		if m.Type.NumIn() < 3 || m.Type.In(2) != reflect.TypeFor[api.Caller]() {
			continue // nobody asks
		}
		for what, id := range map[string]string{"UUID": theirs.UUID.String(), "name": theirs.Name, "host": h.ID()} {
			got, err := asTenant(t, r, m, who, map[string]string{"machine": id, "report": rep.ID})
			if err == nil {
				answered++
			}
			var no *Answer
			if err != nil && !errors.As(err, &no) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s by %s: %v", m.Name, what, err)
			}
			for _, secret := range []string{"their-", "them", theirs.UUID.String(), "odd-on-the-host"} {
				if strings.Contains(got, secret) {
					t.Errorf("%s by %s tells %q: %.300s", m.Name, what, secret, got)
				}
				if err != nil && secret != theirs.UUID.String() && secret != "their-" && strings.Contains(err.Error(), secret) {
					t.Errorf("%s by %s tells %q in its error: %v", m.Name, what, secret, err)
				}
			}
		}
	}
	if answered < 30 {
		t.Errorf("only %d calls were answered: the test shows little", answered)
	}
	// The tenant sees its own VM, and that its host is not what it should be.
	v, err := r.VM(ctx, who, "vm1")
	must(t, err)
	if v.Result.State != appraise.Untrusted || v.Result.Reasons[0].Text != "its host is UNTRUSTED" {
		t.Errorf("%+v", v.Result)
	}
	own, err := r.Attest(ctx, who, api.AttestRequest{VMs: []string{"vm1"}, Scheme: attest.SchemeSEPA, Timeout: 10})
	must(t, err)
	if b, err := json.Marshal(own); err != nil || strings.Contains(string(b), "odd-on-the-host") || len(own.VMs) != 1 {
		t.Errorf("%s %v", b, err)
	}
	if s := w.vmState(r, theirs.UUID.String()); s == "" {
		t.Error("the other tenant's VM is gone")
	}
	got, err := r.Settings(ctx, operator(), theirs.UUID.String())
	must(t, err)
	if got.Tenant != "them" || len(got.RIMs) != 2 {
		t.Errorf("the other tenant's settings were changed: %+v", got)
	}
}

func TestService_says_the_same_of_what_is_not_there_and_of_what_is_somebody_elses(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	vm := newVM(1)
	w.host("h1", vm)
	must(t, r.PutSettings(t.Context(), operator(), vm.UUID.String(), api.Settings{RIMs: []string{"good"}, Tenant: "them"}))
	who := api.Caller{Name: "token:me", Role: api.RoleViewer, Tenant: "me"}
	for name, f := range map[string]func(id string) error{
		"VM":       func(id string) error { _, err := r.VM(t.Context(), who, id); return err },
		"settings": func(id string) error { _, err := r.Settings(t.Context(), who, id); return err },
		"log":      func(id string) error { _, err := r.MachineIMA(t.Context(), who, id); return err },
		"identity": func(id string) error { _, err := r.Identity(t.Context(), who, id); return err },
		"reports":  func(id string) error { _, err := r.Reports(t.Context(), who, id, api.Page{}); return err },
		"gate": func(id string) error {
			_, err := r.Gate(t.Context(), who, api.GateRequest{VM: id, MaxAge: 60})
			return err
		},
	} {
		there, not := f(vm.UUID.String()), f(attest.UUID{15: 77}.String())
		if !errors.Is(there, ErrNotFound) || !errors.Is(not, ErrNotFound) ||
			strings.ReplaceAll(there.Error(), vm.UUID.String(), "X") != strings.ReplaceAll(not.Error(), attest.UUID{15: 77}.String(), "X") {
			t.Errorf("%s: %v and %v", name, there, not)
		}
	}
}
