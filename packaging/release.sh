#!/bin/sh
# release.sh VERSION DIR: everything that a release has, in DIR/release-VERSION. A dry run: nothing is tagged, uploaded or published.
#   RELEASE_KEY  private key (PEM, PKCS #8) that signs the reference values and SHA256SUMS; without it they are unsigned, and say so
#   SKIP_ARM64   non-empty: only this machine's packages
set -eu
[ $# = 2 ] || { echo "usage: release.sh VERSION DIR" >&2; exit 2; }
version=$1
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$2" && cd "$2" && pwd)/release-$version
rm -rf "$out"
mkdir -p "$out"
cd "$here/.."
epoch=$(sh packaging/version.sh -e)

sh packaging/deb.sh "$version" "$out"
sh packaging/rpm.sh "$version" "$out"
if [ -z "${SKIP_ARM64-}" ]; then
	sh packaging/deb.sh "$version" "$out" arm64
fi
# Expanded with this machine's SELinux headers: good to check the policy, not to load it on a Fedora.
if ! [ -e /etc/fedora-release ] && ! [ -e /etc/redhat-release ]; then
	mkdir -p "$out/not-for-release"
	mv "$out"/virt-attest-selinux-*.rpm "$out/not-for-release/"
fi

# Reference values, of each package of each architecture.
for deb in "$out"/*.deb; do
	arch=$(dpkg-deb -f "$deb" Architecture) package=$(dpkg-deb -f "$deb" Package)
	[ "$arch" != all ] || continue
	dpkg-deb -R "$deb" "$out/tree"
	${GO:-go} run ./packaging/release rim -name "$package" -version "$version" -epoch "$epoch" ${RELEASE_KEY:+-key "$RELEASE_KEY"} \
		-o "$out/reference-values/deb-$arch/$package.json" "$package=$out/tree"
	rm -rf "$out/tree"
done
for rpm in "$out"/virt-attest*."$(uname -m)".rpm; do
	package=$(rpm -qp --qf '%{NAME}' "$rpm")
	mkdir "$out/tree"
	rpm2cpio "$rpm" | (cd "$out/tree" && cpio -idm --quiet --no-absolute-filenames)
	${GO:-go} run ./packaging/release rim -name "$package" -version "$version" -epoch "$epoch" ${RELEASE_KEY:+-key "$RELEASE_KEY"} \
		-o "$out/reference-values/rpm-$(uname -m)/$package.json" "$package=$out/tree"
	rm -rf "$out/tree"
done

# What is in -doc, for those who look before they install; and what has changed.
dpkg-deb --fsys-tarfile "$out"/virt-attest-doc_*.deb | tar -C "$out" --strip-components=5 -x \
	./usr/share/doc/virt-attest/licences.txt ./usr/share/doc/virt-attest/virt-attest.cdx.json
if [ -e packaging/COMMITS ]; then
	cat packaging/COMMITS
else
	since=$(git describe --tags --match 'v[0-9]*' --abbrev=0 'HEAD^' 2>/dev/null || true)
	git log --no-merges --format="%h %cs %s" "${since:+$since..}HEAD"
fi | ${GO:-go} run ./packaging/release notes -version "$version" -o "$out/NOTES.md"

rm -f "$out"/*.buildlog
(cd "$out" && find . -type f ! -path './not-for-release/*' | LC_ALL=C sort | sed 's:^\./::' | xargs sha256sum >"$here/../.sums" && mv "$here/../.sums" SHA256SUMS)
if [ -n "${RELEASE_KEY-}" ]; then
	openssl dgst -sha256 -sign "$RELEASE_KEY" -out "$out/SHA256SUMS.sig" "$out/SHA256SUMS"
else
	echo "release: RELEASE_KEY is not set: reference values and SHA256SUMS are not signed" >&2
fi
echo "$out"
