package ear

import "virt-attest/verifier/appraise"

// vectorOf gives what a reason says against a machine as claims. ok is false for a code that has no
// place in the table: the machine's state still counts, the vector stays silent.
func vectorOf(r appraise.Reason) (v Vector, ok bool) {
	switch r.Code {
	case appraise.CodeQuoteSignature, appraise.CodeQuoteNonce, appraise.CodeQuotePCRs:
		return all(CryptoFailed), true
	case appraise.CodeMalformed:
		return all(Unexpected), true
	case appraise.CodeInternal:
		return all(Malfunction), true
	case appraise.CodeAKUnsuitable, appraise.CodeIdentityChanged, appraise.CodeRollback,
		appraise.CodeLinkHash, appraise.CodeLinkComposite, appraise.CodeLinkNoRecord, appraise.CodeVMMissing:
		return Vector{InstanceIdentity: Untrustworthy}, true
	case appraise.CodeAKUnknown:
		return Vector{InstanceIdentity: UnknownInstance}, true
	case appraise.CodeEKUntrusted:
		return Vector{InstanceIdentity: UnknownInstance, Hardware: UnknownHardware}, true
	case appraise.CodeUnapproved, appraise.CodeKeyPending:
		return Vector{InstanceIdentity: NoClaim}, true
	case appraise.CodeIMALog, appraise.CodeIMABootAggregate:
		return Vector{Executables: CryptoFailed}, true
	case appraise.CodeBootLog:
		return Vector{Executables: CryptoFailed, Configuration: CryptoFailed}, true
	case appraise.CodeIMADigest:
		return Vector{Executables: DeniedRuntime}, true
	case appraise.CodeIMAUnlisted, appraise.CodeIMAViolation, appraise.CodeIMASignature, appraise.CodeBootEvent:
		return Vector{Executables: UnknownRuntime}, true
	case appraise.CodeSoftwareVersion:
		return Vector{Executables: VulnerableRuntime}, true
	case appraise.CodeTPMFirmware:
		return Vector{Hardware: VulnerableHardware}, true
	case appraise.CodeTPMClock:
		return Vector{Configuration: UnsafeConfiguration}, true
	case appraise.CodePCRMismatch:
		return mismatch(r.PCR), true
	case appraise.CodeIMAMissing, appraise.CodeNoReference, appraise.CodeExpired, appraise.CodeSuspended, appraise.CodeNeverAttested,
		appraise.CodeNoAgent, appraise.CodeNoTPM, appraise.CodeNotRunning, appraise.CodeNoAnswer, appraise.CodeHostNotTrusted:
		return Vector{Executables: NoClaim}, true
	}
	return nil, false
}

// mismatch tells configuration from code: firmware measures code into the even ones of PCR 0 to 7 and
// what it was told into the odd ones (TCG PC Client Platform Firmware Profile, section 3.3.4).
func mismatch(pcr *uint8) Vector {
	if pcr != nil && *pcr < 8 && *pcr%2 == 1 {
		return Vector{Configuration: UnsafeConfiguration}
	}
	return Vector{Executables: UnknownRuntime}
}

// tierOfState gives the tier of a machine's state.
func tierOfState(s appraise.State) Tier {
	switch s {
	case appraise.Trusted:
		return Affirming
	case appraise.Untrusted, appraise.Rollback:
		return Contraindicated
	}
	return None
}
