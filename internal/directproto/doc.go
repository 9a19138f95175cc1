// Package directproto is how a relying party asks a VM's guest agent over the network, without the host in between (SEPA
// as in the paper): the frames of internal/channel with the requests of internal/agentproto, over TLS on TCP or on vsock.
// An address is tcp://HOST:PORT or vsock://CID:PORT.
//
// Both sides show a certificate. That decides who may ask; whether what comes is true is decided by the vTPM's quote and
// the host's link alone.
package directproto
