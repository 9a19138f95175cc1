// Package tpmtest gives tests a real TPM 2.0: a swtpm process of their own.
//
//	tpm := tpmtest.New(t)                      // powered on and started, as QEMU and firmware would
//	other := tpmtest.New(t, tpmtest.Identity(1)) // another endorsement key
//	path := tpmtest.Socket(t)                  // for a program that opens its TPM by a socket
//
// The vTPMs come from swtpm_setup as on a real host: RSA-2048 EK at 0x81010001, its certificate in
// NV index 0x01c00002, bank sha256. They are manufactured once per user, kept in the user's cache
// directory and copied for every test. Processes end with their test.
package tpmtest
