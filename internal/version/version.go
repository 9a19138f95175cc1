// Package version holds the version that the build put in.
package version

// Version is set by the linker (-X); "devel" in a plain `go build` or test.
var Version = "devel"
