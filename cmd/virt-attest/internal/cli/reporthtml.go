package cli

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode"

	"virt-attest/attest"
	"virt-attest/internal/version"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

//go:embed report.html
var reportPage string

// reportData is what the page of reports shows.
type reportData struct {
	Name    string
	State   appraise.State
	Now     time.Time
	Version string
	Reports []reportShown
}

// reportShown is one report.
type reportShown struct {
	*api.Report
	Time    time.Time
	Kept    bool
	Results []appraise.Result
}

// htmlReport makes one file of reports, which loads nothing and runs nothing. Every text that a machine chose is escaped, and loses
// what would change how the text around it reads.
func htmlReport(m *machine, reports []*api.Report, infos []api.ReportInfo) ([]byte, error) {
	d := reportData{Name: m.name, State: infos[0].State, Now: time.Now(), Version: version.Version}
	for i, r := range reports {
		d.Reports = append(d.Reports, reportShown{Report: r, Time: infos[i].Time, Kept: infos[i].Evidence, Results: results([]*api.Report{r})})
	}
	page, err := template.New("report").Funcs(template.FuncMap{
		"say":    harmless,
		"stamp":  shownTime,
		"ms":     func(s float64) string { return fmt.Sprintf("%.1f", s*1000) },
		"isHost": func(r appraise.Result) bool { return r.UUID == (attest.UUID{}) },
	}).Parse(reportPage)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = page.Execute(&b, d)
	return b.Bytes(), err
}

// harmless is clean without the characters that nobody sees and that change the order of others.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return '?'
		}
		return r
	}, clean(s))
}

func shownTime(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}
