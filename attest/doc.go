// Package attest holds the words of the protocol: what a Verifier asks (Challenge), what a
// host answers (Evidence), and the TPM terms that both are made of. The packages below it
// are the protocol itself, as pure functions without I/O, goroutines or logging:
//
//   - attest/quote checks a TPM2_Quote against key, nonce and PCR values;
//   - attest/measurement replays IMA logs and TCG event logs against PCR values;
//   - attest/sepa binds VM quotes to a host's quote (secure separate attestation);
//   - attest/hypa binds vPCRs that the host read to its quote (hypervisor-based attestation);
//   - attest/binding puts what both bind, of all challenges that wait, under one host quote;
//   - attest/link is the outcome, and what both schemes have in common;
//   - attest/verify takes an Evidence to the scheme that it is of.
//
// The order of use is: attest/sepa or attest/hypa first, which say whether VM and host
// belong together and give back the PCR values that are proven; then attest/measurement to
// explain those values; then a policy, which is not part of this package.
//
// Everything a peer sends is bounded (limits.go) and checked before it is used; decoding
// accepts exactly one encoding per value. The formats, byte for byte and with test vectors,
// are in docs/protocol.md.
//
// Source of the schemes: M. Eckel, A. Fuchs, J. Repp, M. Springer, "Secure Attestation of
// Virtualized Environments", IFIP SEC 2020.
package attest
