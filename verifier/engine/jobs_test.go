package engine

import (
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/rim"
)

func TestJob_that_is_given_up_has_failed_and_tells_why(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		r := w.start(func(c *Config) { c.tries = 1 })
		h := w.host("h1", newVM(1))
		r.attest(t, attest.SchemeSEPA, h.ID())
		r.settled(w)
		v := w.put(r, api.DocRIM, "good", rimWith(t, "good", func(f *rim.File) { f.Exclude = []string{"/usr/bin/odd"} }), false)
		w.exec(r, `ALTER TABLE evidence RENAME TO away`)
		impact, err := r.Impact(t.Context(), operator(), api.DocRIM, "good", v.Version)
		must(t, err)
		again, err := r.Activate(t.Context(), operator(), api.DocRIM, "good", v.Version)
		must(t, err)
		for _, id := range []string{impact.ID, again.ID} {
			var j *api.Job
			w.until("the job has failed", func() bool {
				j, err = r.Job(t.Context(), operator(), id)
				must(t, err)
				return !j.Finished.IsZero()
			})
			if j.State != "failed" || !strings.Contains(j.Error, "evidence") || len(j.Result) != 0 {
				t.Errorf("%+v", j)
			}
		}
		w.exec(r, `ALTER TABLE away RENAME TO evidence`)
		if failed, err := r.st.FailJob(t.Context(), impact.ID, "again", time.Now()); failed || err != nil {
			t.Errorf("it has failed twice: %v, %v", failed, err)
		}
	})
}
