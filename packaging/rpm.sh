#!/bin/sh
# rpm.sh VERSION DIR [ARCH]: rpm packages of the committed source into DIR, for ARCH (x86_64, aarch64), as deb.sh makes Debian's.
# On a machine without Fedora's macros, packaging/rpm/macros stands for them.
set -eu
[ $# -ge 2 ] || { echo "usage: rpm.sh VERSION DIR [ARCH]" >&2; exit 2; }
version=$1
out=$(mkdir -p "$2" && cd "$2" && pwd)
arch=${3:-$(uname -m)}
here=$(cd "$(dirname "$0")" && pwd)
for tool in rpmbuild checkmodule make; do
	command -v $tool >/dev/null || { echo "rpm: $tool is missing: make deps-packages" >&2; exit 2; }
done

tarball=$(sh "$here/dist.sh" "$version" "$out")
work=$out/build-rpm-$arch
rm -rf "$work"
mkdir -p "$work/SOURCES" "$work/SPECS"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mv "$tarball" "$work/SOURCES/"
tarball=$work/SOURCES/${tarball##*/}
tar -C "$work" -xf "$tarball" "virt-attest-$version/packaging"
own=$work/virt-attest-$version/packaging
epoch=$(sh "$own/version.sh" -e)
{ sed "s/@VERSION@/$version/" "$own/rpm/virt-attest.spec"; echo; echo '%changelog'; cat "$own/rpm/changelog"; } >"$work/SPECS/virt-attest.spec"

gocache=${GOCACHE:-$(${GO:-go} env GOCACHE)}
set -- --target "$arch-linux" --define "_topdir $work" --define "_buildhost reproducible" --define "use_source_date_epoch_as_buildtime 1" \
	--define "clamp_mtime_to_source_date_epoch 1" --define "_source_payload w6.xzdio" --define "_binary_payload w6T2.xzdio"
# No package of this machine has the build dependencies' names where it is no Fedora.
[ -e /etc/fedora-release ] || [ -e /etc/redhat-release ] || {
	set -- "$@" --nodeps
	cp "$own/rpm/macros" "$work/.rpmmacros"
	HOME=$work
	export HOME
}
log=$out/virt-attest-$version-1.$arch.buildlog
if ! SOURCE_DATE_EPOCH=$epoch GOCACHE=$gocache rpmbuild "$@" -ba "$work/SPECS/virt-attest.spec" >"$log" 2>&1; then
	tail -n 40 "$log" >&2
	echo "rpm: failed; all of it is in $log" >&2
	exit 1
fi
mv "$work"/RPMS/*/*.rpm "$work"/SRPMS/*.rpm "$out/"
[ -e "$out/${tarball##*/}" ] || mv "$tarball" "$out/"
(cd "$out" && ls virt-attest*"$version-1"*.rpm)
