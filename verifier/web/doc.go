// Package web is the Verifier's web page: HTML made here, htmx and a small script for what changes
// while one looks, SVG for pictures. Everything is embedded; a browser loads nothing from anywhere else,
// and the content security policy forbids it to. Without scripts every link and form still works.
//
// What guests and hosts say (names, paths, event data) is escaped, and what cannot be seen in it (control
// bytes, changes of direction, bytes that are no text) is shown as \xNN: see visible.
//
// The page is made of api.Service alone. Who asks is told by Options.Caller; what a role may do is decided by
// the table of routes, in routes.go.
package web
