// Package enforce does to VMs what their policies ask for by the Verifier's verdicts: pause, cut the network, shut down, destroy, and
// hold a VM at the start gate until its boot is TRUSTED. It also has the Verifier's secrets delivered to VMs that are
// (docs/enforcement.md, docs/secrets.md, docs/adr/0007-start-gate.md).
//
// Three parts: decide says what to do next about one VM, by facts alone (no clock, no I/O); a Keeper gathers facts, carries steps
// out one by one, and remembers in a file what was done, before it is done; a Hypervisor is libvirt.
//
// What holds, whatever a Verifier, a guest or a crash does:
//
//   - Nothing is done that the host's own configuration does not allow.
//   - Nothing is done for a verdict on another run of the VM: it must name the vTPM's power-on that is now.
//   - A VM is ended only where its policy's action, or its gate's outcome, says so by that word.
//   - What is undone is what was done here: a VM that somebody else paused, and a link that was down before, stay so.
package enforce
