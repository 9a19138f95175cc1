package domainxml

import (
	"encoding/xml"
	"fmt"
	"strings"
)

const (
	originalTag   = "attest:original"
	controllerKey = "virtio-serial"
	added         = "added"
)

// Disable takes back what Enable did: the TPM gets its old backend, or goes where there was none
// before, the channel goes, and so does the virtio-serial controller that libvirt added for it,
// unless something else uses it by now.
func Disable(doc string) (string, Change, error) {
	e, err := newEditor(doc)
	if err != nil {
		return "", Change{}, err
	}
	orig, backend := e.original()
	if err := e.disableTPM(backend); err != nil {
		return "", Change{}, err
	}
	others := e.disableChannels()
	if orig != nil {
		if orig.get(controllerKey) == added && !others {
			e.removeControllers()
		}
		e.removeOriginal(orig)
	}
	return e.finish()
}

// original finds our metadata element and the backend in it; nil where they are not there.
func (e *editor) original() (orig, backend *element) {
	if meta := e.root.one("metadata"); meta != nil {
		for _, c := range meta.children {
			if c.name == (xml.Name{Space: Namespace, Local: "original"}) {
				return c, c.one("backend")
			}
		}
	}
	return nil, nil
}

func (e *editor) disableTPM(backend *element) error {
	for _, tpm := range e.devices.all("tpm") {
		if !ours(externalSource(tpm)) {
			continue
		}
		e.change.Model = tpm.get("model")
		if backend == nil {
			e.add(remove(e.doc, tpm))
			continue
		}
		// Who may write metadata shall not get more out of it than the TPM that was there.
		state, err := e.emulatorState(tpm, backend)
		if err != nil {
			return fmt.Errorf("the TPM that its metadata remembers cannot be put back: %w", err)
		}
		e.change.EmulatorState = state
		e.replace(tpm.one("backend"), e.lines(backend))
	}
	return nil
}

// disableChannels removes our channels and tells whether other devices use a virtio-serial controller.
func (e *editor) disableChannels() (others bool) {
	for _, name := range []string{"channel", "console"} {
		for _, c := range e.devices.all(name) {
			if name == "channel" && ours(c.one("source").get("path")) {
				e.add(remove(e.doc, c))
			} else if c.one("target").get("type") == "virtio" {
				others = true
			}
		}
	}
	return others
}

func (e *editor) removeControllers() {
	for _, c := range e.devices.all("controller") {
		if c.get("type") == "virtio-serial" {
			e.add(remove(e.doc, c))
		}
	}
}

// removeOriginal takes our element out of the metadata, and the metadata too where nothing else is in it.
func (e *editor) removeOriginal(orig *element) {
	meta := e.root.one("metadata")
	rest := e.doc[meta.open:orig.start] + e.doc[orig.end:meta.shut]
	if strings.TrimSpace(rest) == "" {
		e.add(remove(e.doc, meta))
		return
	}
	e.add(remove(e.doc, orig))
}

// setOriginal remembers what Disable needs, in place of what an earlier Enable remembered.
func (e *editor) setOriginal(o original) {
	text := "<" + originalTag + ` xmlns:attest="` + Namespace + `"`
	if o.addController {
		text += " " + controllerKey + `="` + added + `"`
	}
	if o.backend == "" {
		text += "/>"
	} else {
		text += ">\n" + shift(o.backend, "  ") + "\n</" + originalTag + ">"
	}
	meta := e.root.one("metadata")
	if old, _ := e.original(); old != nil {
		e.replace(old, text)
		return
	}
	if meta != nil {
		e.insert(meta, text)
		return
	}
	after := e.root.one("uuid")
	in := indent(e.doc, after.start)
	e.add(edit{after.end, after.end, "\n" + in + "<metadata>\n" + shift(text, in+"  ") + "\n" + in + "</metadata>"})
}
