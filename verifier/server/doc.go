// Package server is the Verifier's face: HTTP over a unix socket and, where configured, over TLS with
// client certificates. It knows who asks, bounds what they may send and how long they may take, and
// hands the rest to verifier/engine.
//
// Who may do what is in one table (routes.go), and nothing is served that is not in it. On the
// unix socket the kernel says who asks: root, the Verifier's own user and members of the configured
// group are operators; root and the own user may also speak for a host. Over TLS the common name of the
// client certificate is an operator's if the configuration lists it, and a host's otherwise; which host it
// is, is settled by the first enrolment that it completes (verifier/engine). A client without a credential gets
// nothing: over TLS not even the handshake.
//
// Every connection has deadlines for handshake, headers, bodies and idling; the number of connections
// is capped, per address too. Errors are RFC 9457 problems; the text of a fault of ours stays in the log.
package server
