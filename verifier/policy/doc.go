// Package policy holds policies: what a Verifier requires of a machine, and how often it asks.
// Reference values (verifier/rim) say what a machine's measurements may be; a policy says which of
// them must be shown, which weaker proofs are accepted, and how long a verdict counts.
//
// A File is what people write, read and keep, as JSON of format virt-attest/policy/1
// (docs/policy.md). Decode takes exactly that format and refuses what it does not understand; what a
// file leaves out is as in Default, the strictest. Encode writes one encoding of each File, whole. An
// Index is a File made ready for appraisals; a Library holds each Index once, however many machines use it.
package policy
