package web

import (
	"fmt"
	"html"
	"html/template"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMarks is how many combining marks may follow one letter: no script needs more, and a heap of them covers
// the lines around it.
const maxMarks = 3

// runes calls text with runs of s that can be seen as they are, and hidden with each character that cannot: it
// is not printable (control bytes, changes of direction, characters without width, foreign spaces), or is no UTF-8.
// At most limit characters of s are looked at; rest is how many bytes were left out.
func runes(s string, limit int, text, hidden func(string)) (rest int) {
	start, marks, i := 0, 0, 0
	flush := func(end int) {
		if start < end {
			text(s[start:end])
		}
	}
	for n := 0; i < len(s) && n < limit; n++ {
		r, size := utf8.DecodeRuneInString(s[i:])
		marks++
		if !unicode.In(r, unicode.Mn, unicode.Me) {
			marks = 0
		}
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) || marks > maxMarks {
			flush(i)
			hidden(s[i : i+size])
			start = i + size
		}
		i += size
	}
	flush(i)
	return len(s) - i
}

// escape gives bytes as \xNN, as docs/reasons.md has it for paths.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\x%02x`, s[i])
	}
	return b.String()
}

// visible gives s as HTML. What cannot be seen stands as \xNN in a mark of its own, so that it differs from the
// same letters typed; what is over limit characters is cut, and said to be.
func visible(s string, limit int) template.HTML {
	var b strings.Builder
	rest := runes(s, limit, func(t string) { b.WriteString(html.EscapeString(t)) },
		func(h string) { b.WriteString(`<span class="esc">` + escape(h) + `</span>`) })
	if rest > 0 {
		fmt.Fprintf(&b, `<span class="cut">… and %d bytes more</span>`, rest)
	}
	return template.HTML(b.String()) //nolint:gosec // every piece was escaped just above
}

// plain is visible as text, for titles and pictures.
func plain(s string, limit int) string {
	var b strings.Builder
	rest := runes(s, limit, func(t string) { b.WriteString(t) }, func(h string) { b.WriteString(escape(h)) })
	if rest > 0 {
		b.WriteString("…")
	}
	return b.String()
}

// name gives a name that a guest, a host or an operator chose, apart from the text around it.
func name(s string) template.HTML {
	if s == "" {
		return `<span class="muted">(no name)</span>`
	}
	return "<bdi>" + visible(s, maxName) + "</bdi>"
}

// path gives a file's path, or what else is long and of one piece.
func path(s string) template.HTML { return "<bdi>" + visible(s, maxPath) + "</bdi>" }

// text gives a sentence that may quote what a guest or a host said.
func text(s string) template.HTML { return visible(s, maxText) }

// digits gives hexadecimal in groups of eight; the characters that differ from other are marked.
func digits(hex, other string) template.HTML {
	var b strings.Builder
	marked := false
	set := func(on bool) {
		if on != marked {
			b.WriteString(map[bool]string{true: "<mark>", false: "</mark>"}[on])
			marked = on
		}
	}
	for i := range len(hex) {
		if i > 0 && i%8 == 0 {
			set(false)
			b.WriteString(`<wbr><span class="gap"></span>`)
		}
		set(other != "" && (i >= len(other) || other[i] != hex[i]))
		b.WriteString(html.EscapeString(hex[i : i+1]))
	}
	set(false)
	return template.HTML(b.String()) //nolint:gosec // every character was escaped just above
}

// source gives a text of several lines: as visible, and with its line ends.
func source(s string) template.HTML {
	var b strings.Builder
	for line := range strings.Lines(s) {
		line, ended := strings.CutSuffix(line, "\n")
		b.WriteString(string(visible(line, maxEdit)))
		if ended {
			b.WriteByte('\n')
		}
	}
	return template.HTML(b.String()) //nolint:gosec // every line was escaped just above
}

// ticks gives our own prose in Markdown: what stands between backquotes is code, of links the words are left.
func ticks(s string) template.HTML {
	s = regexp.MustCompile(`\[([^]]+)\]\([^)]*\)`).ReplaceAllString(s, "$1")
	var b strings.Builder
	for i, part := range strings.Split(s, "`") {
		if i%2 == 1 {
			b.WriteString("<code>" + html.EscapeString(part) + "</code>")
		} else {
			b.WriteString(html.EscapeString(part))
		}
	}
	return template.HTML(b.String()) //nolint:gosec // every part was escaped just above
}
