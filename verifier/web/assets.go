package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
)

//go:embed static templates
var embedded embed.FS

// kinds are the content types of what is in static.
func kindOf(file string) string {
	switch filepath.Ext(file) {
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "text/plain; charset=utf-8"
}

// loadAssets reads the embedded files.
func loadAssets() (map[string]asset, error) {
	list, err := fs.ReadDir(embedded, "static")
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	out := make(map[string]asset)
	for _, e := range list {
		b, err := embedded.ReadFile("static/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("web: %w", err)
		}
		sum := sha256.Sum256(b)
		out[e.Name()] = asset{content: b, kind: kindOf(e.Name()), tag: hex.EncodeToString(sum[:8])}
	}
	return out, nil
}

// loadPages parses every page with the frame around it. Those in shared are parts of every page.
func (u *ui) loadPages() (map[string]*template.Template, error) {
	base, err := template.New("").Funcs(u.funcs()).ParseFS(embedded, "templates/shared/*.html")
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	list, err := fs.Glob(embedded, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	out := make(map[string]*template.Template)
	for _, file := range list {
		t, err := base.Clone()
		if err == nil {
			t, err = t.ParseFS(embedded, file)
		}
		if err != nil {
			return nil, fmt.Errorf("web: %w", err)
		}
		out[strings.TrimSuffix(filepath.Base(file), ".html")] = t
	}
	return out, nil
}

// funcs are what templates may call.
func (u *ui) funcs() template.FuncMap {
	return template.FuncMap{
		"name": name, "path": path, "text": text, "plain": func(s string) string { return plain(s, maxName) }, "short": short,
		"stamp": stamp, "seconds": seconds, "count": count, "size": size, "percent": percent,
		"ago":    func(t time.Time) template.HTML { return since(u.opts.Now(), t) },
		"static": func(file string) string { return "/static/" + file + "?v=" + u.files[file].tag },
		"digits": digits, "plural": plural, "lost": lost, "states": states, "word": word, "lower": strings.ToLower, "join": strings.Join,
		"dict": dict, "icon": icon, "vmid": func(u attest.UUID) string { return u.String() },
		"source": source, "ticks": ticks, "part": func(whole, n int) float64 { return 100 * float64(n) / float64(max(whole, 1)) },
		"has": func(list []string, s string) bool { return slices.Contains(list, s) },
		"add": func(a, b int) int { return a + b }, "minus": func(n int) int { return -n },
		"sec": func(s float64) string { return span(time.Duration(s * float64(time.Second))) },
	}
}

// dict makes a map of names and values, for templates that need several.
func dict(pairs ...any) (map[string]any, error) {
	out := make(map[string]any)
	for i := 0; i+1 < len(pairs); i += 2 {
		k, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("web: dict: %v is no name", pairs[i])
		}
		out[k] = pairs[i+1]
	}
	return out, nil
}

// states lists every state, the gravest first, as appraise.Worst has them.
func states() []appraise.State {
	return []appraise.State{appraise.Rollback, appraise.Untrusted, appraise.Error, appraise.Unreachable,
		appraise.Stale, appraise.Pending, appraise.Unconfigured, appraise.Trusted}
}

// word explains a state in a few words, for titles.
func word(s appraise.State) string {
	switch s {
	case appraise.Trusted:
		return "everything required was shown and matches reference values"
	case appraise.Untrusted:
		return "something shown contradicts reference values, or a required proof does not hold"
	case appraise.Stale:
		return "it was decided once, and that has expired"
	case appraise.Pending:
		return "waits for a first attestation or an approval"
	case appraise.Unconfigured:
		return "no reference values to compare with"
	case appraise.Unreachable:
		return "no answer from the host, the agent or the vTPM"
	case appraise.Rollback:
		return "an earlier state of the machine was brought back"
	case appraise.Error:
		return "a fault of the Verifier: says nothing about the machine"
	}
	return ""
}

// icon gives the ID of a state's picture in the page's sprite.
func icon(s appraise.State) string {
	if word(s) == "" {
		return "i-unknown"
	}
	return "i-" + strings.ToLower(string(s))
}
