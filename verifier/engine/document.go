package engine

import (
	"crypto/sha256"
	"encoding/hex"

	"virt-attest/verifier/api"
	"virt-attest/verifier/policy"
	"virt-attest/verifier/rim"
)

// parsed is what a document's content says about itself.
type parsed struct {
	name  string
	files int // of reference values
	rim   *rim.File
	pol   *policy.File
}

// parse reads a document's content strictly. The error is for whoever wrote it.
func parse(kind api.DocKind, content []byte) (*parsed, error) {
	switch kind {
	case api.DocRIM:
		f, err := rim.Decode(content)
		if err != nil {
			return nil, said(ErrInvalid, "%v", err)
		}
		x, err := rim.NewIndex(f)
		if err != nil {
			return nil, said(ErrInvalid, "%v", err)
		}
		return &parsed{name: f.Name, files: x.Files, rim: f}, nil
	case api.DocPolicy:
		f, err := policy.Decode(content)
		if err != nil {
			return nil, said(ErrInvalid, "%v", err)
		}
		if _, err := policy.NewIndex(f); err != nil {
			return nil, said(ErrInvalid, "%v", err)
		}
		return &parsed{name: f.Name, pol: f}, nil
	}
	return nil, said(ErrInvalid, "there are no documents of kind %.20q", string(kind))
}

// checkDoc refuses kinds and names that no document has.
func checkDoc(kind api.DocKind, name string) error {
	var err error
	switch kind {
	case api.DocRIM:
		err = rim.CheckName(name)
	case api.DocPolicy:
		err = policy.CheckName(name)
	default:
		return said(ErrInvalid, "there are no documents of kind %.20q", string(kind))
	}
	if err != nil {
		return said(ErrInvalid, "%v", err)
	}
	return nil
}

// docText calls a document by its kind and name, for people.
func docText(kind api.DocKind, name string) string {
	if kind == api.DocPolicy {
		return "policy " + name
	}
	return "reference values " + name
}

// change is one difference of either kind of document.
type change struct {
	added              bool
	what, where, value string
}

// difference gives what b says and a does not, and the reverse.
func difference(a, b *parsed) []api.DocChange {
	var list []change
	if a.rim != nil {
		for _, c := range rim.Diff(a.rim, b.rim) {
			list = append(list, change{c.Added, c.What, c.Where, c.Value})
		}
	} else {
		for _, c := range policy.Diff(a.pol, b.pol) {
			list = append(list, change{c.Added, c.What, c.Where, c.Value})
		}
	}
	return changes(list)
}

// changes makes one change of a value that went and one that came at the same place, where there is no other.
func changes(list []change) []api.DocChange {
	type place struct{ what, where string }
	at := make(map[place][2]int)
	for _, c := range list {
		p := place{c.what, c.where}
		n := at[p]
		if c.added {
			n[1]++
		} else {
			n[0]++
		}
		at[p] = n
	}
	out := []api.DocChange{}
	old := make(map[place]string)
	for _, c := range list {
		if p := (place{c.what, c.where}); at[p] == [2]int{1, 1} && !c.added {
			old[p] = c.value
		}
	}
	for _, c := range list {
		p := place{c.what, c.where}
		d := api.DocChange{What: c.what}
		if c.where != "" {
			d.What += " " + c.where
		}
		single := at[p] == [2]int{1, 1}
		switch {
		case single && !c.added:
			continue
		case single:
			d.Op, d.Old, d.New = "change", old[p], c.value
		case c.added:
			d.Op, d.New = "add", c.value
		default:
			d.Op, d.Old = "remove", c.value
		}
		out = append(out, d)
	}
	return out
}

func sha256Hex(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}
