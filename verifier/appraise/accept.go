package appraise

import (
	"encoding/hex"
	"strings"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/rim"
)

// Accepted gives what reference values have to allow for a Reason to go away, for rim.Accept; false where
// none can: what is no measurement, boot_aggregate, an entry that cannot be read or whose path is not known
// whole, a signature that is missing.
func (r Reason) Accepted() (rim.Accepted, bool) {
	switch r.Code {
	case CodeIMAUnlisted, CodeIMADigest:
		path, ok := measurement.ParsePathText(r.Path)
		known := ok && r.Entry != nil && r.Digest != "" && len(path) > 0 && len(path) < maxPath
		return rim.Accepted{Path: r.Path, Digest: r.Digest}, known && r.Path != measurement.BootAggregateName
	case CodeIMAViolation:
		return rim.Accepted{Path: r.Path, Violation: true}, r.Entry != nil && strings.HasPrefix(r.Path, "/") && len(r.Path) < maxPath
	case CodePCRMismatch:
		name, text, _ := strings.Cut(r.Digest, ":")
		alg, err := attest.ParseAlg(name)
		value, err2 := hex.DecodeString(text)
		if r.PCR == nil || err != nil || err2 != nil || len(value) != alg.Size() {
			return rim.Accepted{}, false
		}
		return rim.Accepted{PCR: &rim.AcceptedPCR{Alg: alg, Index: *r.PCR, Value: value}}, true
	}
	return rim.Accepted{}, false
}
