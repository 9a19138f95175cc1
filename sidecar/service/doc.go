// Package service answers hostd on the VM's sidecar.sock: what the vTPM does, its
// endorsement key and PCRs read by the sidecar itself, announcements of quotes to the
// hypervisor store, and requests that are passed on to the guest agent.
//
// The protocol is internal/sidecarproto in frames of internal/channel. Only processes of root and of the
// sidecar's own user are served (SO_PEERCRED); connections and the size of everything
// that crosses are bounded. Each connection's requests are answered one by one; whoever wants
// a PCR read while an agent is slow opens a second connection.
package service
