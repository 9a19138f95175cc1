package domainxml

import (
	"fmt"
	"io"
	"path"
	"strings"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/sidecarproto"
)

// Namespace is that of virt-attest's element in a domain's <metadata>.
const Namespace = "https://virt-attest.org/xmlns/domain/1"

// RuntimeDir holds one directory per VM with the sockets of its sidecar.
const RuntimeDir = "/run/virt-attest"

// SocketPath gives a VM's socket of that name (internal/sidecarproto).
func SocketPath(uuid attest.UUID, name string) string {
	return path.Join(RuntimeDir, uuid.String(), name)
}

// Domain is what matters of a domain's XML.
type Domain struct {
	UUID    attest.UUID
	OptedIn bool   // a TPM or a channel of it leads to RuntimeDir
	TPM     string // that TPM's socket as the XML has it, empty where there is none
	Agent   string // that channel's socket, likewise

	tpms, agents int // devices that lead to RuntimeDir
}

// Inspect reads a domain's XML, as libvirt gives it to hooks and as virsh dumpxml prints it.
// It reads no further than the root element's end and at most MaxXML bytes. Errors wrap ErrXML.
func Inspect(r io.Reader) (Domain, error) {
	root, err := scan(r)
	if err != nil {
		return Domain{}, err
	}
	return inspect(root)
}

func inspect(root *element) (Domain, error) {
	uuids := root.all("uuid")
	if len(uuids) != 1 {
		return Domain{}, fmt.Errorf("%w: it has %d <uuid> elements", ErrXML, len(uuids))
	}
	uuid, err := attest.ParseUUID(strings.TrimSpace(uuids[0].text))
	if err != nil {
		return Domain{}, fmt.Errorf("%w: %w", ErrXML, err)
	}
	d := Domain{UUID: uuid}
	for _, devices := range root.all("devices") {
		for _, t := range devices.all("tpm") {
			if p := externalSource(t); ours(p) {
				d.TPM, d.tpms = p, d.tpms+1
			}
		}
		for _, c := range devices.all("channel") {
			if p := c.one("source").get("path"); ours(p) {
				d.Agent, d.agents = p, d.agents+1
			}
		}
	}
	d.OptedIn = d.tpms+d.agents > 0
	return d, nil
}

// externalSource gives the socket of an external TPM, empty for any other.
func externalSource(tpm *element) string {
	b := tpm.one("backend")
	if b.get("type") != "external" {
		return ""
	}
	return b.one("source").get("path")
}

// ours says whether a path leads below RuntimeDir, however it is spelled.
func ours(p string) bool {
	p = path.Clean(p)
	return strings.HasPrefix(p, RuntimeDir+"/") || strings.HasPrefix(p, "/var"+RuntimeDir+"/")
}

// Check says what is wrong with a domain that opted in: a device is missing or there twice, or leads to
// another VM's sidecar, as after copying a definition. The error says what to do.
func (d Domain) Check() error {
	const repair = "virt-attest enable repairs the definition"
	tpm, agent := SocketPath(d.UUID, sidecarproto.TPMSocket), SocketPath(d.UUID, sidecarproto.AgentSocket)
	switch {
	case d.tpms > 1 || d.agents > 1:
		return fmt.Errorf("the domain has %d TPMs and %d channels below %s, not one of each; remove the others with virsh edit", d.tpms, d.agents, RuntimeDir)
	case d.tpms == 0:
		return fmt.Errorf("the domain has the guest agent's channel but not the TPM with the socket %s; %s", tpm, repair)
	case d.agents == 0:
		return fmt.Errorf("the domain has the TPM but not the channel %s with the socket %s; %s", agentproto.PortName, agent, repair)
	case d.TPM != tpm:
		return fmt.Errorf("the domain's TPM leads to %.128q, which is not its own socket %s (a copied definition?); %s", d.TPM, tpm, repair)
	case d.Agent != agent:
		return fmt.Errorf("the domain's channel leads to %.128q, which is not its own socket %s (a copied definition?); %s", d.Agent, agent, repair)
	}
	return nil
}
