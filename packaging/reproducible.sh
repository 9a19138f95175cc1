#!/bin/sh
# reproducible.sh VERSION DIR: builds the Debian packages and the rpms twice, in other directories, with another umask, time zone and
# language, the second time with nothing built before and from the unpacked tarball, and compares byte by byte.
set -eu
[ $# = 2 ] || { echo "usage: reproducible.sh VERSION DIR" >&2; exit 2; }
version=$1
out=$(mkdir -p "$2" && cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
first=$out/first second=$out/second/and/elsewhere
rm -rf "$first" "$out/second"
export DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS-} nocheck"

(umask 022 && sh "$here/deb.sh" "$version" "$first" && sh "$here/rpm.sh" "$version" "$first")
mkdir -p "$second"
tar -C "$second" -xf "$first/virt-attest-$version.tar.xz"
(umask 027 && cd "$second/virt-attest-$version" &&
	TZ=Pacific/Auckland LC_ALL=C.UTF-8 GOCACHE=${COLD:+$out/second/cache} sh packaging/deb.sh "$version" "$second" &&
	TZ=Pacific/Auckland LC_ALL=C.UTF-8 GOCACHE=${COLD:+$out/second/cache} sh packaging/rpm.sh "$version" "$second")
bad=0
for f in "$first"/*.deb "$first"/*.rpm "$first"/*.tar.xz; do
	if cmp "$f" "$second/${f##*/}"; then
		echo "same: ${f##*/}"
	else
		bad=1
		! command -v diffoscope >/dev/null || diffoscope --max-report-size 20000 "$f" "$second/${f##*/}" || true
	fi
done
exit $bad
