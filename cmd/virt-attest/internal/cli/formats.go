package cli

import (
	"bytes"
	"encoding/json"

	"go.yaml.in/yaml/v3"
)

// outputs and progresses are what -o and --progress take.
var (
	outputs    = []string{"table", "wide", "json", "yaml", "name"}
	progresses = []string{"auto", "bar", "plain", "json", "none"}
)

// structured prints v for programs, where JSON or YAML was asked for; done tells whether it was.
func (a *app) structured(v any) (done bool, err error) {
	switch a.output {
	case "json":
		return true, a.printJSON(v)
	case "yaml":
		return true, a.printYAML(v)
	}
	return false, nil
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printYAML prints what printJSON would, as YAML: the same keys in the same order.
func (a *app) printYAML(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil { // JSON is YAML
		return err
	}
	block(&n)
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return err
	}
	_, err = a.out.Write(out.Bytes())
	return err
}

// block takes the style of JSON off a node and all below it.
func block(n *yaml.Node) {
	if len(n.Content) > 0 {
		n.Style = 0
	}
	var text yaml.Node // with the quotes that YAML needs, of 1.1 too
	if n.Kind == yaml.ScalarNode && n.Style == yaml.DoubleQuotedStyle && text.Encode(n.Value) == nil {
		*n = text
	}
	for _, c := range n.Content {
		block(c)
	}
}

// column is one column of a list.
type column[T any] struct {
	head string
	wide bool // only with -o wide
	cell func(T) string
}

// showList prints items as -o says: a table, names, or everything for programs.
func showList[T any](a *app, items []T, name func(T) string, cols []column[T]) error {
	if items == nil {
		items = []T{}
	}
	if done, err := a.structured(items); done {
		return err
	}
	if a.output == "name" {
		for _, it := range items {
			a.printf("%s\n", clean(name(it)))
		}
		return nil
	}
	var heading []string
	rows := make([][]string, len(items))
	for _, c := range cols {
		if c.wide && a.output != "wide" {
			continue
		}
		heading = append(heading, c.head)
		for i, it := range items {
			rows[i] = append(rows[i], c.cell(it))
		}
	}
	a.table(heading, rows)
	return nil
}
