// Package appraise compares verified Evidence with reference values and gives Results
// (RFC 9334: appraisal of Evidence by a Verifier). It is a function: no clock, no files, no
// network, no memory of its own.
//
// # Order of use
//
// attest/sepa or attest/hypa says which PCR values are proven to be whose (link.Linked). The
// caller knows who is enrolled and approved and hands in what speaks against a machine as
// Reasons (Subject.Known), its reference values (Subject.RIMs) and the state that the last
// appraisal left (Subject.Prior). Appraise gives a Result and the next state for the host and
// for every VM.
//
// # Rules
//
//   - Everything fails closed: what is not proven, not listed or not understood is a Reason,
//     and a machine with a Reason is not TRUSTED. A fault of this package is ERROR.
//   - A VM is never better than its host or its link.
//   - State advances only by what was proven, and for a VM only on a host that is trusted: a
//     compromised host could otherwise make an honest VM look rolled back later.
//   - What once ran stays: findings in the IMA log count until the machine boots again or
//     reference values accept them. When reference values change, or what the policy says of findings, the whole
//     log is appraised again (Subject.History, or the next answer: Machine.Resume asks for it).
//   - A Policy only ever adds demands to the strict default or names the weaker proof that it accepts. A
//     Result says by Basis what it was made with.
//   - A file's signature counts by a key that reference values list, and only over the digest that PCR 10 proves.
//   - Counters, clock, epoch, log and PCR 10 never go back within what the TPM's own counters
//     call one boot: ROLLBACK, until a later boot or until an operator forgets the state. An answer that
//     a later one has overtaken (Input.Issued) is STALE instead.
//   - The cost of an appraisal without new log entries depends neither on the size of the
//     reference values nor on the length of the log.
//
// What IMA does not measure is not seen: scripts given to an interpreter that was measured,
// memory-only code, files on file systems that the guest's policy leaves out, and disk contents that
// a malicious host changes between measurement and use (docs/threat-model.md).
//
// Every Code is explained in docs/reasons.md.
package appraise
