package domains

import (
	"encoding/xml"
	"path/filepath"
	"strings"

	"virt-attest/attest"
	"virt-attest/internal/domainxml"
	"virt-attest/internal/sidecarproto"
)

// maxXML bounds a domain's XML. libvirt's own limit for one is 4 MiB.
const maxXML = 4 << 20

// OptedIn says whether a domain's XML gives it virt-attest's vTPM: an external TPM whose socket is
// runDir/UUID/tpm.sock.
func OptedIn(domain string, id attest.UUID, runDir string) bool {
	if len(domain) > maxXML {
		return false
	}
	var d struct {
		TPMs []struct {
			Backend struct {
				Type   string `xml:"type,attr"`
				Source struct {
					Path string `xml:"path,attr"`
				} `xml:"source"`
			} `xml:"backend"`
		} `xml:"devices>tpm"`
	}
	if err := xml.NewDecoder(domainxml.OneColon(strings.NewReader(domain))).Decode(&d); err != nil {
		return false
	}
	want := filepath.Join(runDir, id.String(), sidecarproto.TPMSocket)
	for _, t := range d.TPMs {
		if t.Backend.Type == "external" && filepath.Clean(t.Backend.Source.Path) == want {
			return true
		}
	}
	return false
}
