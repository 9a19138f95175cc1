// Package pgtest gives tests a PostgreSQL of their own.
//
// The first call of URL in a test binary makes a cluster with Debian's PostgreSQL 15, as an unprivileged user
// where the tests run as root, in a directory and on a port that nobody else has. Every test gets a database. The server
// ends and its directory goes when the test binary ends, however it ends. New makes a cluster for one test, which
// may stop it and start it again.
//
// Whoever reaches the directory of the socket is trusted, and only the user and root do; over TCP, on 127.0.0.1, a
// password is needed, which the URLs have.
package pgtest
