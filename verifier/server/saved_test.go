package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/softtpm"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/rim"
)

func TestSavedEvidence_is_judged_offline_as_it_was_by_the_service(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m, n := newVM(1), newVM(2)
		h := v.host("host1", m, n)
		index, err := new(rim.Library).Load(newBox().Golden(t, "good"))
		must(t, err)
		refs := evaluate.References{h.ID(): {index}, m.UUID.String(): {index}, n.UUID.String(): {index}}
		anchors := evaluate.Anchors{HostEK: api.EKSHA256(h.TPM.EKPublic()), HostAK: h.TPM.AKName(), VTPMs: []evaluate.VTPM{
			{EKName: softtpm.Name(m.TPM.EKPublic()), UUID: m.UUID, AKName: m.TPM.AKName()},
			{EKName: softtpm.Name(n.TPM.EKPublic()), UUID: n.UUID, AKName: n.TPM.AKName()}}}
		verify := func(b []byte, a evaluate.Anchors) *api.Report {
			t.Helper()
			r, err := evaluate.VerifySaved(b, a, refs, appraise.Policy{}, time.Now())
			must(t, err)
			return r
		}
		for _, scheme := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA, attest.SchemeSEPA, attest.SchemeHYPA} {
			live := v.attest(scheme, "host1") // from the second on with increments
			b, err := v.ReportEvidence(t.Context(), live.ID)
			must(t, err)
			r := verify(b, anchors)
			want(t, r.Host, live.Host.State)
			for i := range r.VMs {
				want(t, r.VMs[i], appraise.Trusted)
				if r.VMs[i].Entries != live.VMs[i].Entries {
					t.Errorf("%v: %d entries offline, %d live", scheme, r.VMs[i].Entries, live.VMs[i].Entries)
				}
			}
			want(t, verify(b, evaluate.Anchors{}).Host, appraise.Untrusted, appraise.CodeAKUnknown)
			if scheme == attest.SchemeSEPA {
				want(t, verify(b, evaluate.Anchors{HostEK: anchors.HostEK, HostAK: anchors.HostAK}).VMs[0], appraise.Untrusted, appraise.CodeAKUnknown)
			}
			m.IMA.File("/usr/bin/init", "init")
		}
		m.IMA.File("/tmp/evil", "evil")
		want(t, v.attest(attest.SchemeHYPA, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeIMAUnlisted)
		m.IMA.File("/usr/bin/init", "init")
		want(t, v.attest(attest.SchemeHYPA, "", "vm1").VMs[0], appraise.Untrusted, appraise.CodeIMAUnlisted)
		b, err := v.MachineEvidence(t.Context(), m.UUID.String())
		must(t, err)
		want(t, verify(b, anchors).VMs[0], appraise.Untrusted, appraise.CodeIMAUnlisted) // found long before this answer
	})
}

func TestSavedEvidence_that_was_changed_is_not_trusted(t *testing.T) {
	onEach(t, func(t *testing.T, v *verifier) {
		m := newVM(1)
		h := v.host("host1", m)
		v.attest(attest.SchemeHYPA, "host1")
		m.IMA.File("/tmp/evil", "evil")
		r := v.attest(attest.SchemeHYPA, "host1")
		b, err := v.ReportEvidence(t.Context(), r.ID)
		must(t, err)
		index, err := new(rim.Library).Load(newBox().Golden(t, "good"))
		must(t, err)
		refs := evaluate.References{h.ID(): {index}, m.UUID.String(): {index}}
		anchors := evaluate.Anchors{HostEK: api.EKSHA256(h.TPM.EKPublic()), HostAK: h.TPM.AKName(),
			VTPMs: []evaluate.VTPM{{EKName: softtpm.Name(m.TPM.EKPublic()), UUID: m.UUID}}}
		for name, change := range map[string]func(*attest.Evidence){
			"the entry cut off": func(ev *attest.Evidence) {
				l := &ev.VMs[0].IMA
				l.Count, l.Data = l.Count-1, newBox().IMA.Data
			},
			"another resume point": func(ev *attest.Evidence) { ev.Challenge.Resume = nil },
			"another nonce":        func(ev *attest.Evidence) { ev.Challenge.Nonce[0] ^= 1 },
			"another VM":           func(ev *attest.Evidence) { ev.VMs[0].UUID[0] ^= 1 },
			"other PCRs":           func(ev *attest.Evidence) { ev.VMs[0].PCRs = newBox().IMA.PCRs.Values() },
		} {
			ev, err := attest.DecodeEvidence(b)
			must(t, err)
			change(ev)
			changed, err := ev.Encode()
			must(t, err)
			got, err := evaluate.VerifySaved(changed, anchors, refs, appraise.Policy{}, time.Now())
			if err == nil && (len(got.VMs) == 0 || got.VMs[0].State == appraise.Trusted || got.Host.State == appraise.Trusted) {
				t.Errorf("%s: %+v", name, got)
			}
		}
		for _, garbage := range [][]byte{nil, {1}, b[:len(b)/2], append(append([]byte{}, b...), 0)} {
			if _, err := evaluate.VerifySaved(garbage, anchors, refs, appraise.Policy{}, time.Now()); !errors.Is(err, attest.ErrMalformed) {
				t.Errorf("%d bytes: %v", len(garbage), err)
			}
		}
	})
}

var update = flag.Bool("update", false, "write the golden files anew")

// volatile is what differs from run to run.
var volatile = regexp.MustCompile(`[0-9a-f]{32,}|[0-9a-f]{16}…|20\d\d-\d\d-\d\dT[0-9:.]*Z|("seconds": )[0-9.e-]+|[0-9]+( bytes of evidence)`)

func TestAPI_answers_are_those_of_the_golden_files(t *testing.T) {
	v := newVerifier(t)
	m := newVM(1)
	v.host("host1", m)
	m.IMA.File("/tmp/evil", "evil")
	report := v.attest(attest.SchemeSEPA, "", "vm1")
	hosts, err := v.Hosts(t.Context())
	must(t, err)
	vms, err := v.VMs(t.Context())
	must(t, err)
	rims, err := v.RIMs(t.Context())
	must(t, err)
	_, problem := v.Report(t.Context(), "0")
	var p *api.Problem
	if !errors.As(problem, &p) {
		t.Fatal(problem)
	}
	for name, a := range map[string]any{"report": report, "hosts": hosts, "vms": vms, "rims": rims, "problem": p} {
		b, err := json.MarshalIndent(a, "", "  ")
		must(t, err)
		b = append(volatile.ReplaceAll(b, []byte("${1}…$2")), '\n')
		file := filepath.Join("testdata", name+".json")
		if *update {
			must(t, os.MkdirAll("testdata", 0o755))
			must(t, os.WriteFile(file, b, 0o644))
		}
		golden, err := os.ReadFile(file)
		must(t, err)
		if string(golden) != string(b) {
			t.Errorf("%s is\n%s\nwant\n%s", name, b, golden)
		}
	}
}

// metrics gives what Prometheus would read.
func (v *verifier) metrics() string {
	v.t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", v.conf.Listen.Unix)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, "http://localhost/metrics", nil)
	must(v.t, err)
	res, err := tr.RoundTrip(req)
	must(v.t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	must(v.t, err)
	return string(b)
}

func TestMetrics_tell_when_the_certificates_run_out(t *testing.T) {
	if strings.Contains(newVerifier(t).metrics(), "cert_expiry_seconds{") {
		t.Error("there is none")
	}
	v, _ := secured(t, newAuthority(t))
	text := v.metrics()
	for _, kind := range []string{"server", "ca"} {
		m := regexp.MustCompile(`virt_attest_cert_expiry_seconds\{kind="` + kind + `"\} ([0-9.]+)`).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("nothing of %s", kind)
		}
		if left, err := strconv.ParseFloat(m[1], 64); err != nil || left < 1 || left > 3600 {
			t.Errorf("%s: %s", kind, m[1])
		}
	}
}

func TestMetrics_count_attestations_and_requests(t *testing.T) {
	v := newVerifier(t)
	v.host("host1", newVM(1))
	want(t, v.attest(attest.SchemeSEPA, "", "vm1").VMs[0], appraise.Trusted)
	text := v.metrics()
	for _, line := range []string{`virt_attest_attestations_total{kind="vm",result="TRUSTED",scheme="sepa"} 1`, `route="POST /api/v1/attest"`, `virt_attest_verdicts{kind="vm",state="TRUSTED"} 1`, "virt_attest_nonce_issued_total 1",
		"virt_attest_evidence_age_seconds_count 1", `virt_attest_queue_depth{queue="evidence"} 0`, `virt_attest_db_query_duration_seconds_bucket{access="write",le="+Inf"}`,
		`virt_attest_db_query_duration_seconds_bucket{access="read",le="+Inf"}`} {
		if !strings.Contains(text, line) {
			t.Errorf("no line with %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
