#!/bin/sh
# deb.sh VERSION DIR [ARCH]: Debian packages of the committed source into DIR, for ARCH (amd64, arm64). The source is packed first,
# and the packages are built from what was packed: a checkout and a release's tarball give the same bytes.
# Debian 12 has no Go that is new enough: with the build profile pkg.virt-attest.localgo it is the one in the PATH.
set -eu
[ $# -ge 2 ] || { echo "usage: deb.sh VERSION DIR [ARCH]" >&2; exit 2; }
version=$1
out=$(mkdir -p "$2" && cd "$2" && pwd)
build=$(dpkg --print-architecture)
arch=${3:-$build}
revision=0upstream1
here=$(cd "$(dirname "$0")" && pwd)
for tool in dpkg-buildpackage dh dh_apparmor debconf-updatepo; do
	command -v $tool >/dev/null || { echo "deb: $tool is missing: make deps-packages" >&2; exit 2; }
done

tarball=$(sh "$here/dist.sh" "$version" "$out")
# Always the same directory: a compiler may note where it was.
work=$out/build-deb-$arch
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
tar -C "$work" -xf "$tarball"
tree=$work/virt-attest-$version
cp "$tarball" "$work/virt-attest_$version.orig.tar.xz"
cp -r "$tree/packaging/debian" "$tree/debian"

profiles=pkg.virt-attest.localgo
if [ "$arch" = "$build" ]; then
	set -- --build=full
else
	# Another machine's programs: without the packages that are for all, and without asking for that machine's
	# libvirt-dev and libc6-dev, of which the compiler for it brings what is needed.
	set -- --build=any --host-arch "$arch" -d
	profiles="$profiles,nocheck,cross"
fi
log=$out/virt-attest_$version-${revision}_$arch.buildlog
# With what the caller's Go has built already, if it is allowed to: its cache is named by content.
if ! (cd "$tree" && GOCACHE="${GOCACHE:-$(${GO:-go} env GOCACHE)}" DEB_BUILD_PROFILES=$(echo $profiles | tr , ' ') \
	dpkg-buildpackage -us -uc "$@") >"$log" 2>&1; then
	tail -n 40 "$log" >&2
	echo "deb: failed; all of it is in $log" >&2
	exit 1
fi
for f in "$work"/*.deb "$work"/*.dsc "$work"/*.debian.tar.xz "$work"/*.orig.tar.xz "$work"/*.buildinfo "$work"/*.changes; do
	[ ! -e "$f" ] || mv "$f" "$out/"
done
(cd "$out" && ls virt-attest*"_$version-${revision}_$arch.deb")
