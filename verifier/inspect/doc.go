// Package inspect shows what the Verifier has on record of a machine in the terms of people: each entry of an
// IMA log with what reference values say about it, PCRs beside the values that are wanted, events of a boot
// log, keys as PEM. It decides nothing: verdicts are verifier/appraise's, and what is shown here explains them.
package inspect
