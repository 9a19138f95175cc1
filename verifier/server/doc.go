// Package server is the Verifier's face: HTTP over a unix socket, over TLS with client certificates, and for people,
// browsers and programs with tokens (listen.web). It knows who asks, bounds what they may send and how long they may
// take, and hands the rest to an api.Service and an api.HostService (verifier/engine).
//
// Who may do what is in one table (routes.go), and nothing is served that is not in it. A route's requests are read by
// the same types that its description is made of (operation.go, bind.go, openapi.go), so that docs/openapi.json
// cannot say anything else than the program does.
//
// On the unix socket the kernel says who asks: root, the Verifier's own user and members of the configured group are
// admins; root and the own user may also speak for a host. On listen.tls the common name of the client certificate
// has a role if the configuration lists it, and is a host's otherwise; which host it is, is settled by the first
// enrolment that it completes. A client without a certificate gets nothing there, not even the handshake. On
// listen.web a bearer token, a session's cookie or a certificate says who asks (session.go); what a browser changes by its
// cookie must come from our own pages, and a Host header must be one of ours.
//
// Every connection has deadlines for handshake, headers, bodies and idling; the number of connections is capped, per
// address too, and so are event streams. Errors are RFC 9457 problems; the text of a fault of ours stays in the log.
package server
