package metrics_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/engine"
	"virt-attest/verifier/metrics"
	"virt-attest/verifier/webhook"
)

var _ engine.Meter = metrics.Meter{}

// engineStages lists the stages that the engine speaks of.
func engineStages(t *testing.T) []string {
	f, err := parser.ParseFile(token.NewFileSet(), "../engine/meter.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Stage") {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		return true
	})
	if len(out) < 4 {
		t.Fatalf("%q", out)
	}
	return out
}

func TestMeter_counts_everything_that_the_engine_tells(t *testing.T) {
	m := newMetrics()
	meter := m.Meter()
	meter.Verdict("vm", attest.SchemeHYPA, appraise.Rollback, []appraise.Reason{{Code: appraise.CodeRollback}})
	meter.Quote(7, 30, 900)
	meter.NonceIssued()
	meter.NonceExpired()
	meter.EvidenceAge(time.Minute)
	meter.Queue(5)
	meter.Panic("appraise")
	meter.Delivery(webhook.Delivered)
	lines := []string{
		`virt_attest_attestations_total{kind="vm",result="ROLLBACK",scheme="hypa"} 1`,
		`virt_attest_failures_total{reason="rollback"} 1`,
		`virt_attest_vms_per_quote_sum 7`,
		`virt_attest_ima_entries_total 30`,
		`virt_attest_evidence_bytes_sum 900`,
		`virt_attest_nonce_issued_total 1`,
		`virt_attest_nonce_expired_total 1`,
		`virt_attest_evidence_replaced_age_seconds_sum 60`,
		`virt_attest_appraisals_pending 5`,
		`virt_attest_panics_total 1`,
		`virt_attest_webhook_deliveries_total{result="delivered"} 1`,
	}
	for _, s := range engineStages(t) {
		meter.Stage(s, time.Second)
		lines = append(lines, `virt_attest_attestation_duration_seconds_sum{stage="`+s+`"} 1`)
	}
	wants(t, scrape(t, m), lines...)
}
