package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/rim"
)

// atOnce runs n calls at the same time, by two replicas in turn, and gives their errors.
func (w *world) atOnce(n int, f func(r *replica, i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(w.all[i%len(w.all)], i) })
	}
	wg.Wait()
	return errs
}

func TestAttestOnce_at_two_replicas_makes_one_challenge(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r, other := w.start(), w.start()
		h := w.host("host1", newVM(1))
		h.OnSend = func(*attest.Evidence) bool { return false }
		req := api.AttestRequest{Host: h.ID(), Scheme: attest.SchemeSEPA, Timeout: 60}
		jobs := make([]api.Job, 6)
		must(t, errors.Join(w.atOnce(len(jobs), func(r *replica, i int) error {
			j, err := r.AttestOnce(t.Context(), operator(), "key1", req)
			if err == nil {
				jobs[i] = *j
			}
			return err
		})...))
		for _, j := range jobs {
			if j.ID != jobs[0].ID || !j.Created.Equal(jobs[0].Created) {
				t.Errorf("%+v and %+v", j, jobs[0])
			}
		}
		n, err := r.st.CountHost(t.Context(), h.ID())
		must(t, err)
		if n != 1 {
			t.Errorf("%d challenges are under way", n)
		}
		shorter := req
		shorter.Timeout = 50
		if _, err := other.AttestOnce(t.Context(), operator(), "key1", shorter); !errors.Is(err, ErrRepeat) {
			t.Errorf("another request: %v", err)
		}
		for who, key := range map[api.Caller]string{operator(): "key2", {Name: "somebody", Role: api.RoleAdmin}: "key1"} {
			j, err := other.AttestOnce(t.Context(), who, key, req)
			must(t, err)
			if j.ID == jobs[0].ID {
				t.Errorf("%s with %s got the first one's job", who.Name, key)
			}
		}
	})
}

func TestPutDocument_of_two_who_saw_the_same_version_changes_it_once(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		w.start()
		seen := w.put(r, api.DocRIM, "web", rimWith(t, "web", func(*rim.File) {}), true).SHA256
		errs := w.atOnce(4, func(r *replica, i int) error {
			content := rimWith(t, "web", func(f *rim.File) { f.Description = fmt.Sprint(i) })
			_, err := r.PutDocument(context.WithoutCancel(t.Context()), operator(), api.DocRIM, "web",
				api.DocPut{Content: content, Activate: true, Match: func(active string) bool { return active == seen }})
			return err
		})
		if n := count(errs, nil); n != 1 || count(errs, ErrChanged) != 3 {
			t.Errorf("%d changed it: %v", n, errs)
		}
	})
}

func TestChangeSettings_of_two_replicas_overwrites_nothing_unseen(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start()
		w.start()
		for i := range 4 {
			w.reference(newBox().Golden(t, fmt.Sprint("r", i)), fmt.Sprint("r", i))
		}
		id := attest.UUID{15: 1}.String()
		errs := w.atOnce(4, func(r *replica, i int) error {
			return r.ChangeSettings(t.Context(), operator(), id, func(v api.Settings) (api.Settings, error) {
				v.RIMs = append(slices.Clone(v.RIMs), fmt.Sprint("r", i))
				return v, nil
			})
		})
		must(t, errors.Join(errs...))
		v, err := r.Settings(t.Context(), operator(), id)
		must(t, err)
		if !slices.Equal(v.RIMs, []string{"r0", "r1", "r2", "r3"}) {
			t.Errorf("%v", v.RIMs)
		}
		errs = w.atOnce(4, func(r *replica, i int) error {
			return r.ChangeSettings(t.Context(), operator(), id, func(v api.Settings) (api.Settings, error) {
				if len(v.RIMs) != 4 {
					return v, ErrChanged
				}
				return api.Settings{RIMs: []string{fmt.Sprint("r", i)}}, nil
			})
		})
		if n := count(errs, nil); n != 1 {
			t.Errorf("%d replaced what all of them saw: %v", n, errs)
		}
	})
}

// count counts the errors that are err.
func count(errs []error, err error) (n int) {
	for _, e := range errs {
		if errors.Is(e, err) {
			n++
		}
	}
	return n
}
