package engine

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
)

func TestHistogram_gives_quantiles_as_closely_as_it_counts(t *testing.T) {
	var h Histogram
	for i := range 1000 {
		h.Observe(time.Duration(i+1) * time.Millisecond)
	}
	h.Observe(-time.Second)
	h.Observe(100 * time.Hour)
	for q, want := range map[float64]float64{0.5: 0.5, 0.95: 0.95, 0.99: 0.99} {
		if got := h.Quantile(q); math.Abs(got-want) > 0.3*want {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	var none Histogram
	if none.Quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	none.Add(h)
	none.Add(h)
	if math.Abs(none.Quantile(0.5)-h.Quantile(0.5)) > 0.001 {
		t.Error("the sum of two that are the same has another median")
	}
}

func TestStatistics_are_on_record_by_the_minute(t *testing.T) {
	w := onSQLite(t)
	r := w.start()
	w.host("host1", newVM(1), newVM(2))
	from := time.Now().Truncate(time.Minute)
	for range 3 {
		want(t, r.attest(t, attest.SchemeSEPA, "host1").Host, appraise.Trusted)
	}
	must(t, r.tellStats(t.Context()))
	must(t, r.tellStats(t.Context())) // nothing new
	rows, err := r.st.Stats(t.Context(), from.Unix()/60, time.Now().Unix()/60)
	must(t, err)
	at := make(map[int64]*Bucket)
	for _, row := range rows {
		b := &Bucket{}
		must(t, json.Unmarshal(row.Data, b))
		at[row.Minute] = b
	}
	s := series(from, time.Minute, 2, at)
	if v := s.VMs[0] + s.VMs[1]; math.Abs(v-6.0/60) > 1e-9 {
		t.Errorf("%v VMs per second, want 6 in a minute", v)
	}
	if s.Trusted[0] != 1 && s.Trusted[1] != 1 || s.PerQuote[0]+s.PerQuote[1] < 2 || s.Latency.P99[0]+s.Latency.P99[1] == 0 {
		t.Errorf("%+v", s)
	}
}
