package domainxml

import (
	"cmp"
	"slices"
	"strings"
)

// edit replaces the text from start to end.
type edit struct {
	start, end int
	text       string
}

// apply makes all edits, which do not overlap, at once.
func apply(doc string, edits []edit) string {
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	var b strings.Builder
	at := 0
	for _, e := range edits {
		b.WriteString(doc[at:e.start])
		b.WriteString(e.text)
		at = e.end
	}
	b.WriteString(doc[at:])
	return b.String()
}

// remove takes an element away together with the white space before it on its line, and the line break.
func remove(doc string, e *element) edit {
	start := len(strings.TrimRight(doc[:e.start], " \t"))
	if start > 0 && doc[start-1] == '\n' {
		start--
	}
	return edit{start: start, end: e.end}
}

// appendTo puts text, one line or several without a last line break, at the end of parent's content.
func appendTo(doc string, parent *element, text string) edit {
	if parent.empty() {
		tag := strings.TrimRight(strings.TrimSuffix(doc[parent.start:parent.end], "/>"), " \t\n")
		outer := indent(doc, parent.start)
		return edit{parent.start, parent.end, tag + ">\n" + shift(text, outer+"  ") + "\n" + outer + "</" + parent.name.Local + ">"}
	}
	at := len(strings.TrimRight(doc[:parent.shut], " \t\n"))
	at = max(at, parent.open)
	outer := indent(doc, parent.start)
	return edit{at, parent.shut, "\n" + shift(text, outer+"  ") + "\n" + outer}
}

// indent gives the white space before the element that starts at offset at.
func indent(doc string, at int) string {
	line := doc[strings.LastIndexByte(doc[:at], '\n')+1 : at]
	if strings.Trim(line, " \t") != "" {
		return ""
	}
	return line
}

// shift puts by before every line of text.
func shift(text, by string) string {
	return by + strings.ReplaceAll(text, "\n", "\n"+by)
}
