// Package ear writes and checks attestation results for relying parties: EAT Attestation Results
// (EAR, draft-ietf-rats-ear-04), signed as a JWT with ES256. Whoever has the Verifier's public keys can
// check one without asking anybody. docs/results.md has every claim.
//
// A token is about one VM, or about a host alone. In a token about a VM the parts are "vm", "host"
// and "link", the proof that this VM runs on that host. Rules:
//
//   - A part is "affirming" only if it is TRUSTED, and the VM is never better than its host or its link.
//     The whole is the worst part.
//   - "none" is worse than "affirming": nothing was shown. A fault of the Verifier is "none" with claims
//     of -1, never "affirming".
//   - Claims of the trustworthiness vector (draft-ietf-rats-ar4si) say what is affirmed only where the
//     machine is TRUSTED; elsewhere they say what is wrong, by the codes of the reasons.
//   - A token does not outlive the verdict that it is about.
//
// The Verifier:
//
//	keys, err := ear.NewKeys(stored)            // and ear.Rotate now and then
//	token, err := issuer.Token(keys, in, now)
//	jwks, err := keys.JWKS()                    // published
//
// A relying party:
//
//	set, err := ear.ParseJWKS(jwks)
//	result, err := ear.Verify(token, set, ear.Expect{Subject: uuid, Nonce: mine, Now: time.Now()})
//	if err == nil && result.Trusted() { … }
package ear
