// Package domainxml knows how a libvirt domain takes part in attestation, and reads and changes
// that part of its XML and nothing else.
//
// A domain takes part when its TPM is an external one and a virtio-serial channel leads to
// the guest agent, both through sockets of its own sidecar:
//
//	<tpm model='tpm-crb'>
//	  <backend type='external'>
//	    <source type='unix' mode='connect' path='/run/virt-attest/UUID/tpm.sock'/>
//	  </backend>
//	</tpm>
//	<channel type='unix'>
//	  <source mode='connect' path='/run/virt-attest/UUID/agent.sock'>
//	    <reconnect enabled='yes' timeout='1'/>
//	  </source>
//	  <target type='virtio' name='org.virt_attest.0'/>
//	</channel>
//
// Inspect finds that out; the hook and the command line use it. Enable and Disable are the pure
// functions behind `virt-attest enable` and `disable`. They cut and paste text at the
// positions that an XML tokenizer reports instead of decoding into structures and
// encoding them again: what they do not know, they cannot lose (elements and attributes of
// newer libvirt versions, qemu:commandline, foreign metadata, comments, white space).
// What Enable replaces is kept, as it stood, in the domain's metadata:
//
//	<attest:original xmlns:attest="https://virt-attest.org/xmlns/domain/1">
//	  <backend type='emulator' version='2.0'/>
//	</attest:original>
//
// Input is bounded; document type declarations, and with them entities, are refused.
package domainxml
