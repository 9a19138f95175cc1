package conf

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// spot is a place in a text; both are counted from 1. length is in bytes.
type spot struct{ line, column, length int }

// entry is a key, or the name of a table, that stands in a text.
type entry struct {
	key   string
	at    spot
	table bool
}

// scan finds every key of a text, also those of inline tables. Where the text is no TOML it gives what came before.
func scan(text []byte) ([]entry, error) {
	var p unstable.Parser
	var out []entry
	section := ""
	for p.Reset(text); p.NextExpression(); {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			section = join("", e.Key())
			out = append(out, entry{section, first(&p, e), true})
		case unstable.KeyValue:
			out = append(out, values(&p, section, e)...)
		default: // a comment
		}
	}
	return out, p.Error()
}

func values(p *unstable.Parser, section string, e *unstable.Node) []entry {
	key := join(section, e.Key())
	at := first(p, e)
	if e.Value().Kind != unstable.InlineTable {
		return []entry{{key, at, false}}
	}
	out := []entry{{key, at, true}}
	for in := e.Value().Children(); in.Next(); {
		out = append(out, values(p, key, in.Node())...)
	}
	return out
}

// first is where an expression's key begins.
func first(p *unstable.Parser, e *unstable.Node) spot {
	it := e.Key()
	it.Next()
	from := p.Shape(it.Node().Raw).Start
	return spot{from.Line, from.Column, int(it.Node().Raw.Length)}
}

func join(section string, key unstable.Iterator) string {
	for key.Next() {
		section += "." + string(key.Node().Data)
	}
	return strings.TrimPrefix(section, ".")
}

// document is a file in lines.
type document struct {
	name  string
	lines []string
}

// mistake says what is wrong at a place, and shows it.
func (d document) mistake(at spot, key, text string) error {
	return fmt.Errorf("%s:%d: %s: %s\n%s", d.name, at.line, key, text, d.show(at, false))
}

// syntax says why a text is not taken.
func (d document) syntax(err error) error {
	var decode *toml.DecodeError
	var parser *unstable.ParserError
	switch {
	case errors.As(err, &decode):
		line, column := decode.Position()
		at := spot{line, column, 1}
		text := strings.TrimPrefix(decode.Error(), "toml: ")
		if key := strings.Join(decode.Key(), "."); key != "" {
			return d.mistake(at, key, text)
		}
		return fmt.Errorf("%s:%d: %s\n%s", d.name, line, text, d.show(at, false))
	case errors.As(err, &parser):
		return d.syntax(toml.Unmarshal([]byte(strings.Join(d.lines, "\n")), new(any)))
	}
	return fmt.Errorf("%s: %w", d.name, err)
}

var password = regexp.MustCompile(`://.*@|(?i)password=[^&"'\s]*`)

// show is the line with a mark below the place. What may be a password in it is covered; of a secret's line the key is left.
func (d document) show(at spot, secret bool) string {
	if at.line < 1 || at.line > len(d.lines) {
		return ""
	}
	line := strings.TrimSuffix(d.lines[at.line-1], "\r")
	line = password.ReplaceAllStringFunc(line, func(s string) string { return strings.Repeat("*", len(s)) })
	if key, _, ok := strings.Cut(line, "="); ok && secret {
		line = key + "= …"
	}
	clean := func(r rune) rune {
		if r < ' ' || r == 0x7f { // a tab, too: the mark counts characters
			return ' '
		}
		return r
	}
	line = strings.Map(clean, line)
	before := len([]rune(line[:min(max(at.column-1, 0), len(line))]))
	shown := []rune(line)
	if len(shown) > maxShown {
		shown = shown[:maxShown]
	}
	number := fmt.Sprintf("%5d | ", at.line)
	mark := strings.Repeat(" ", len(number)-2) + "| " + strings.Repeat(" ", min(before, maxShown)) + strings.Repeat("^", max(1, at.length))
	return number + string(shown) + "\n" + mark
}

// place is where a value was given: in a file, or by a variable.
type place struct {
	doc      document
	at       spot
	variable string
}

func (p place) String() string {
	if p.variable != "" {
		return "$" + p.variable
	}
	return fmt.Sprintf("%s:%d", p.doc.name, p.at.line)
}

// mistake says what is wrong with a value.
func (p place) mistake(key, text string, secret bool) error {
	if p.variable != "" {
		return fmt.Errorf("%s: %s: %s", p.variable, key, text)
	}
	return fmt.Errorf("%s:%d: %s: %s\n%s", p.doc.name, p.at.line, key, text, p.doc.show(p.at, secret))
}
