// Package rim holds reference values (RFC 9334), the integrity measurements that a machine
// may show: values of boot PCRs or digests of the events that make them, digests of the files that IMA
// measures, and the keys of those who may sign files.
//
// A File is what people write, read and keep, as JSON of format virt-attest/rim/1
// (docs/reference-values.md). Decode takes exactly that format, Encode writes one encoding of
// each File. An Index is the same File made ready for look-ups, whose cost does not grow with
// the file; a Library holds each Index once, however many machines use it. A Set is what is
// assigned to one machine: a value is allowed if any of its indexes allows it.
//
// Everything not listed is refused; what is excluded is accepted without a check and reported
// as such by Match. Nothing is matched by prefix or by regular expression.
package rim
