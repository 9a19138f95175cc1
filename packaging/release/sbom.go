package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// The parts of CycloneDX 1.5 that are used (https://cyclonedx.org/docs/1.5/json/).
type (
	bom struct {
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		Serial       string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		PURL       string     `json:"purl,omitempty"`
		Licenses   []licence  `json:"licenses,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	licence struct {
		License struct {
			ID string `json:"id"`
		} `json:"license"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn,omitempty"`
	}
)

// sbom is the list of what is linked into the programs, as CycloneDX.
func sbom(o options, l *linkage) ([]byte, error) {
	self := component{Type: "application", Ref: "virt-attest", Name: "virt-attest", Version: o.version, Licenses: licences("Apache-2.0"),
		Properties: []property{{"virt-attest:platform", l.platform}}}
	b := bom{Format: "CycloneDX", SpecVersion: "1.5", Version: 1, Metadata: metadata{o.time().Format(time.RFC3339), self}}
	uses := map[string][]string{}
	for _, m := range l.modules {
		c := m.component()
		b.Components = append(b.Components, c)
		b.Dependencies = append(b.Dependencies, dependency{Ref: c.Ref})
		for _, p := range m.Programs {
			uses[p] = append(uses[p], c.Ref)
		}
	}
	var programs []string
	for _, p := range l.programs {
		ref := "program:" + p
		programs = append(programs, ref)
		b.Components = append(b.Components, component{Type: "application", Ref: ref, Name: p, Version: o.version, Licenses: self.Licenses})
		b.Dependencies = append(b.Dependencies, dependency{ref, uses[p]})
	}
	b.Dependencies = append(b.Dependencies, dependency{self.Ref, programs})
	// The same list has the same serial number: a UUID of its content.
	content, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(content)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	b.Serial = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
	text, err := json.MarshalIndent(b, "", "  ")
	return append(text, '\n'), err
}

func (m *module) component() component {
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	if m.Path == htmx {
		purl = "pkg:npm/" + m.Path + "@" + m.Version
	}
	c := component{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl, Licenses: licences(m.License)}
	if m.Sum != "" {
		c.Properties = []property{{"go:sum", m.Sum}}
	}
	return c
}

func licences(names string) []licence {
	var out []licence
	for name := range strings.SplitSeq(names, " AND ") {
		var l licence
		l.License.ID = name
		out = append(out, l)
	}
	return out
}
