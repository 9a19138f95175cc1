package cli

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

const rogueName = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m{{.}}"

func TestReport_as_a_page_says_what_a_machine_is_called_and_runs_nothing_of_it(t *testing.T) {
	why := appraise.Reason{Code: "ima-unlisted", Layer: "vm", Text: rogueName, Hint: rogueName}
	vm := appraise.Result{UUID: attest.UUID{1}, Name: rogueName, Host: rogueName, State: appraise.Untrusted, Reasons: []appraise.Reason{why}, Notes: []appraise.Reason{why}, Kernel: rogueName, Agent: rogueName, RIM: rogueName, Policy: rogueName}
	r := &api.Report{ID: rogueName, Scheme: attest.SchemeSEPA, VMs: []appraise.Result{vm}, Steps: []api.Step{{Text: rogueName, Seconds: 1}}}
	b, err := htmlReport(&machine{name: rogueName}, []*api.Report{r}, []api.ReportInfo{{State: appraise.Untrusted, Time: time.Unix(1e9, 0)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<script", "<img", "\u202e", "\x1b", "src=", "http://", "https://", "onerror=alert(1)>\""} {
		if strings.Contains(strings.ReplaceAll(string(b), "src=x onerror=alert(1)&gt;", ""), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, good := range []string{"&lt;script&gt;", "UNTRUSTED", "2001-09-09 01:46:40 UTC", "prefers-color-scheme:dark", "@media print", "default-src 'none'"} {
		if !strings.Contains(string(b), good) {
			t.Errorf("the page lacks %q", good)
		}
	}
}

func TestReport_as_a_plot_is_XML_whatever_a_machine_is_called(t *testing.T) {
	start := time.Unix(1e9, 0)
	svg := statePlot(rogueName, []api.Event{{Time: start, State: appraise.Trusted}, {Time: start.Add(time.Hour), State: "<x>"}, {Time: start.Add(2 * time.Hour), State: appraise.Stale}}, start.Add(3*time.Hour))
	d := xml.NewDecoder(strings.NewReader(svg))
	rects := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			if e.Name.Local == "rect" {
				rects++
			}
			if !strings.Contains("svg rect text title", e.Name.Local) {
				t.Errorf("has <%s>", e.Name.Local)
			}
		}
	}
	if rects != 1+2+3 {
		t.Errorf("%d rectangles", rects)
	}
}
