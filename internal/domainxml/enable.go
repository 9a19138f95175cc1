package domainxml

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/sidecarproto"
)

// Where the state of vTPMs lies.
const (
	libvirtStateDir = "/var/lib/libvirt/swtpm"
	stateDir        = "/var/lib/virt-attest/vtpm"
)

// ErrUnsupported wraps the reasons for which a domain cannot be enabled or disabled as it is.
var ErrUnsupported = errors.New("cannot change this domain")

// Change is what Enable or Disable did, and what is left to do beside the definition.
type Change struct {
	Changed bool // false: the domain was already as it was asked to be, the text is unchanged
	UUID    attest.UUID
	Model   string // of the TPM: tpm-crb, tpm-tis, tpm-spapr

	// EmulatorState is the directory with the state of the vTPM that libvirt ran until now (Enable)
	// or will run again (Disable); empty where there was none. Its content belongs into
	// SidecarState after Enable, and back after Disable.
	EmulatorState string
	SidecarState  string
}

// StateDir gives the directory of the vTPM's state of an enabled VM.
func StateDir(uuid attest.UUID) string { return stateDir + "/" + uuid.String() }

// Enable makes a domain take part in attestation: its TPM becomes external, or gets one, and
// it gets the guest agent's channel. An emulated TPM 2.0 keeps its model and everything else but
// the backend. A domain that was copied from an enabled one gets sockets of its own.
// Errors wrap ErrUnsupported (a TPM that cannot be taken over: passthrough, TPM 1.2, encrypted
// state, another's external one) or ErrXML.
func Enable(doc string) (string, Change, error) {
	e, err := newEditor(doc)
	if err != nil {
		return "", Change{}, err
	}
	tookOver, err := e.enableTPM()
	if err != nil {
		return "", Change{}, err
	}
	if err := e.enableChannel(); err != nil {
		return "", Change{}, err
	}
	if tookOver != nil {
		e.setOriginal(*tookOver)
	}
	return e.finish()
}

// editor collects what is to be changed of a document.
type editor struct {
	doc     string
	root    *element
	devices *element
	domain  Domain
	change  Change
	edits   []edit
	inserts map[*element]string // text to append to an element's content
}

func newEditor(doc string) (*editor, error) {
	root, err := scan(strings.NewReader(doc))
	if err != nil {
		return nil, err
	}
	e := &editor{doc: doc, root: root, inserts: make(map[*element]string)}
	if e.domain, err = inspect(root); err != nil {
		return nil, err
	}
	all := root.all("devices")
	if len(all) != 1 || len(root.all("metadata")) > 1 {
		return nil, fmt.Errorf("%w: it has %d <devices> elements", ErrXML, len(all))
	}
	e.devices = all[0]
	e.change = Change{UUID: e.domain.UUID, SidecarState: StateDir(e.domain.UUID)}
	return e, nil
}

// finish makes the edits and reads the result once more: nothing leaves this package unparsed.
func (e *editor) finish() (string, Change, error) {
	for parent, text := range e.inserts {
		e.add(appendTo(e.doc, parent, text))
	}
	if len(e.edits) == 0 {
		return e.doc, e.change, nil
	}
	e.change.Changed = true
	out := apply(e.doc, e.edits)
	if _, err := scan(strings.NewReader(out)); err != nil {
		return "", Change{}, fmt.Errorf("the changed text: %w", err)
	}
	return out, e.change, nil
}

// insert appends an element to parent's content, behind what was inserted there before.
func (e *editor) insert(parent *element, text string) {
	if before := e.inserts[parent]; before != "" {
		text = before + "\n" + text
	}
	e.inserts[parent] = text
}

func (e *editor) add(ed edit) { e.edits = append(e.edits, ed) }

// replace puts text, indented as the element was, in its place.
func (e *editor) replace(old *element, text string) {
	in := indent(e.doc, old.start)
	e.add(edit{old.start, old.end, strings.TrimPrefix(shift(text, in), in)})
}

// lines gives an element's text without its indentation.
func (e *editor) lines(old *element) string {
	return strings.ReplaceAll(e.doc[old.start:old.end], "\n"+indent(e.doc, old.start), "\n")
}

// original is what Disable needs to know.
type original struct {
	backend       string // text of the TPM's <backend>, empty: there was no TPM
	addController bool   // libvirt will add a virtio-serial controller, because there is none
}

// enableTPM gives what to remember, or nil where the TPM was ours already.
func (e *editor) enableTPM() (*original, error) {
	tpms := e.devices.all("tpm")
	if len(tpms) > 1 {
		return nil, fmt.Errorf("%w: it has %d TPMs, and attestation knows exactly one per VM", ErrUnsupported, len(tpms))
	}
	took := &original{addController: !e.hasSerialController()}
	socket := SocketPath(e.domain.UUID, sidecarproto.TPMSocket)
	if len(tpms) == 0 {
		model, err := e.modelForArch()
		if err != nil {
			return nil, err
		}
		e.change.Model = model
		e.insert(e.devices, "<tpm model='"+model+"'>\n"+shift(externalBackend(socket), "  ")+"\n</tpm>")
		return took, nil
	}
	tpm := tpms[0]
	e.change.Model = tpm.get("model")
	backend := tpm.one("backend")
	switch source := externalSource(tpm); {
	case source == socket:
		return nil, nil
	case ours(source): // a copied definition
		e.replace(backend, externalBackend(socket))
		return nil, nil
	}
	state, err := e.emulatorState(tpm, backend)
	if err != nil {
		return nil, err
	}
	e.change.EmulatorState = state
	took.backend = e.lines(backend)
	e.replace(backend, externalBackend(socket))
	return took, nil
}

// emulatorState gives the state directory of a TPM that can be taken over.
func (e *editor) emulatorState(tpm, backend *element) (string, error) {
	refuse := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
	}
	version := backend.get("version")
	if version == "" && tpm.get("model") != "tpm-tis" {
		version = "2.0" // what libvirt takes for every model but tpm-tis
	}
	source := backend.one("source")
	switch kind := backend.get("type"); {
	case kind == "passthrough":
		return refuse("its TPM is the host's own, passed through; the host needs it for its quotes")
	case kind == "external":
		return refuse("its TPM is an external one of another program (%.128q)", externalSource(tpm))
	case kind != "emulator":
		return refuse("its TPM has the unknown backend type %.32q", kind)
	case version != "2.0":
		return refuse("its TPM has version %.16q; attestation needs TPM 2.0 (remove the old TPM first, the guest loses what is sealed to it)", version)
	case backend.one("encryption") != nil:
		return refuse("its TPM's state is encrypted with a libvirt secret, which only libvirt can read")
	case source != nil && (source.get("type") != "dir" || !path.IsAbs(source.get("path"))):
		return refuse("its TPM's state is kept in a %.16q, not in a directory", source.get("type"))
	case source != nil:
		return source.get("path"), nil
	}
	return libvirtStateDir + "/" + e.domain.UUID.String() + "/tpm2", nil
}

// modelForArch gives the TPM model that firmware and guests of an architecture expect.
func (e *editor) modelForArch() (string, error) {
	arch := e.root.one("os").one("type").get("arch")
	switch arch {
	case "", "x86_64", "i686":
		return "tpm-crb", nil
	case "aarch64", "armv7l":
		return "tpm-tis", nil
	case "ppc64", "ppc64le":
		return "tpm-spapr", nil
	}
	return "", fmt.Errorf("%w: there is no TPM for the architecture %.16q", ErrUnsupported, arch)
}

func externalBackend(socket string) string {
	return "<backend type='external'>\n  <source type='unix' mode='connect' path='" + socket + "'/>\n</backend>"
}

func channelSource(socket string) string {
	return "<source mode='connect' path='" + socket + "'>\n  <reconnect enabled='yes' timeout='1'/>\n</source>"
}

func (e *editor) enableChannel() error {
	socket := SocketPath(e.domain.UUID, sidecarproto.AgentSocket)
	var found *element
	for _, c := range e.devices.all("channel") {
		source := c.one("source").get("path")
		named := c.one("target").get("name") == agentproto.PortName
		switch {
		case !named && !ours(source):
		case found != nil || !named || !ours(source) || c.get("type") != "unix":
			return fmt.Errorf("%w: it has a channel %.64q to %.128q that virt-attest did not make; remove it first",
				ErrUnsupported, c.one("target").get("name"), source)
		default:
			found = c
		}
	}
	switch {
	case found == nil:
		e.insert(e.devices, "<channel type='unix'>\n"+shift(channelSource(socket), "  ")+
			"\n  <target type='virtio' name='"+agentproto.PortName+"'/>\n</channel>")
	case found.one("source").get("path") != socket:
		e.replace(found.one("source"), channelSource(socket))
	}
	return nil
}

func (e *editor) hasSerialController() bool {
	for _, c := range e.devices.all("controller") {
		if c.get("type") == "virtio-serial" {
			return true
		}
	}
	return false
}
