// Package eventlog reads TCG event logs, in which firmware and boot loaders say what they
// measured into PCR 0-9, and replays them against quoted values (TCG PC Client Platform
// Firmware Profile, section 10; TCG EFI Protocol Specification for the SHA-1 form).
//
// Both forms are read: the crypto-agile one, which begins with a "Spec ID Event03" event and
// has a digest per bank, and the older one with SHA-1 digests only.
//
// # What a replayed log proves
//
// That its digests, in order, were extended into the quoted PCRs. Not more: an event's type is in
// no digest, and its data only where the digest is that of the data. Whoever
// controls the machine after the boot can relabel events and change such data, and the log
// replays all the same. Names here say so: UntrustedType, RawData, DigestVerified.
// Nothing should be decided by an event; compare PCR values with reference values, and use the log
// to explain a difference.
//
// Anomalies lists what a sound log does not have: Forged ones (a missing or repeated separator, a
// separator whose data is not what was measured, EV_NO_ACTION events that hide data) and ones that are
// only unusual (a type that the profile does not know for that PCR, which every new firmware brings).
package eventlog
