package ear

import "virt-attest/verifier/appraise"

// InTable reports whether a reason's code has claims.
func InTable(r appraise.Reason) bool {
	_, ok := vectorOf(r)
	return ok
}
