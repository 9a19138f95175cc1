// Package measurement explains the PCR values that a quote has proven: it reads the
// measurement lists of Linux IMA and replays them. Its sub-package eventlog does the same
// for the event logs of firmware and boot loaders.
//
// # What is proven and what is not
//
// A list is the machine's own account and is believed in no point before it was replayed:
// folding the entries, in order, has to give the value of PCR 10 that the TPM signed.
// Replay does exactly that and hands out the entries only afterwards (Proof.Entries).
// Of an entry only the template data is hashed into the PCR, so only the template data is
// proven; the PCR index, the template's name and the template digest beside it are not.
// The template digest says one thing only, whether the entry is a violation (it is then
// all zero, and the kernel extends the PCR by 0xFF bytes), and a lie about that does not
// replay either. Comparing the listed digest with the data adds no security once a bank
// has been replayed from the data; it is done on failure, to name the entry that was
// changed (Options.CheckDigests does it always).
//
// # Lists that grow
//
// The kernel appends to the list before it extends the PCR, and the list is read after the
// quote was made: it may run ahead. The shortest prefix that gives the quoted value is the
// proof, the rest is a tail that proves nothing yet. State keeps what a proof ended with,
// so that the next one needs the new entries only, and costs what is new.
//
// # Formats
//
// Every template of the kernel (security/integrity/ima/ima_template.c) is understood: ima,
// ima-ng, ima-sig, ima-ngv2, ima-sigv2, ima-buf, ima-modsig, evm-sig, and custom formats,
// whose name is their list of fields. Entries of other templates are replayed like all
// others and reported as unparsed. Only the binary list is read: in the text list a file
// name with a line feed forges entries. Lists of big-endian kernels are recognised by the
// PCR index, the first word of every entry.
//
// Nothing here panics, and nothing is allocated by a length that the list claims.
package measurement
