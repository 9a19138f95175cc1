// Package proxy stands between QEMU and a VM's swtpm. It carries QEMU's control commands and
// TPM commands to swtpm and the answers back, records every TPM2_Quote in the hypervisor store
// before its response leaves, and reads from the vTPM on its own account between two commands
// of the guest.
//
// Four sockets meet here: QEMU's control connection (it connects), QEMU's data socket (it
// passes the descriptor with SET_DATAFD), and the same two towards swtpm (made by attach). All
// of them, and the journal, are copied into the service manager's descriptor store before they
// are used, so that the successor of a killed process goes on where it stopped.
//
// Two loops run, each on a thread of its own: pump moves the guest's TPM commands, control
// moves QEMU's control commands. They are independent, because QEMU cancels a running TPM
// command by a control command. Both are state machines over a slot of the journal and have no
// other memory of what is under way: starting and going on after a crash are the same thing.
//
//	guest slot     taking → sending → awaiting → recording → replying → taking
//	control slot   taking → judging → sending → awaiting → applying → replying → taking
//	own slot       idle → sending → awaiting → idle
//
// Refused and unanswerable requests go from taking, judging, sending or awaiting straight to
// replying, with an answer made here.
//
// Errors that QEMU sees while swtpm is dead are as long as the replies they stand for: QEMU before
// 9.2 waits for those.
//
// swtpm's data socket serves one command at a time; whoever has one under way holds the lane.
//
// What is refused, and why: package tpmwire (Judge) for TPM commands, package swtpmctl (Check) for control
// commands. A guest or a QEMU that breaks the protocol harms its own TPM only.
package proxy
