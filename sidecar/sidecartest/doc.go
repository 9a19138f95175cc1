// Package sidecartest gives the sidecar's tests its surroundings: a swtpm with a control socket only,
// as its unit starts it, a QEMU that speaks the TPM emulator protocol as the real one does, and a service manager
// that holds descriptors over the death of the process it runs.
package sidecartest
