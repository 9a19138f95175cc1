#!/bin/sh
# builds.sh VERSION DIR: packages of two builds, DIR/old and DIR/new, unless they are there.
set -eu
version=$1 dir=$2
export DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS-} nocheck"
build() { # VERSION DIR
	[ -z "$(find "$2" -name "virt-attest-host_$1-*.deb" 2>/dev/null)" ] || return 0
	rm -rf "$2"
	sh packaging/deb.sh "$1" "$2"
}
build 0~git0.old "$dir/old"
build "$version" "$dir/new"
