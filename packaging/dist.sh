#!/bin/sh
# dist.sh VERSION DIR: makes DIR/virt-attest-VERSION.tar.xz, the source of a release with all modules, bit for bit the
# same from the same commit. What is not committed is not in it. From an unpacked tarball it makes that tarball again.
set -eu
[ $# = 2 ] || { echo "usage: dist.sh VERSION DIR" >&2; exit 2; }
version=$1
out=$(mkdir -p "$2" && cd "$2" && pwd)
top=$(cd "$(dirname "$0")/.." && pwd)
epoch=$(sh "$top/packaging/version.sh" -e)
name=virt-attest-$version
tmp=$(mktemp -d "$out/.dist-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

if [ -e "$top/packaging/RELEASE" ]; then
	mkdir "$tmp/$name"
	tar -C "$top" --exclude=./bin --exclude=./dist --exclude=./debian -c . | tar -C "$tmp/$name" -x
else
	git -C "$top" diff --quiet HEAD || echo "dist: changes that are not committed are left out" >&2
	git -C "$top" archive --prefix="$name/" HEAD | tar -C "$tmp" -x
	(cd "$tmp/$name" && ${GO:-go} mod vendor)
	git -C "$top" log --no-merges --format='%h %cs %s' >"$tmp/$name/packaging/COMMITS"
	(cd "$tmp/$name" && ${GO:-go} run ./packaging/release copyright -o packaging/debian/copyright packaging/debian/copyright.in vendor/modules.txt)
fi
echo "$version $epoch" >"$tmp/$name/packaging/RELEASE"
sh "$tmp/$name/packaging/changelog.sh" "$version" "$epoch" "$tmp/$name/packaging"
find "$tmp/$name" -type d -exec chmod 755 {} + -o -type f -perm /111 -exec chmod 755 {} + -o -type f -exec chmod 644 {} +

# Two threads or more give the same bytes; one thread would give others.
tar -C "$tmp" --sort=name --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
	--mtime="@$epoch" --owner=0 --group=0 --numeric-owner -c "$name" | xz -T2 -2 --block-size=16MiB >"$tmp/tar.xz"
mv "$tmp/tar.xz" "$out/$name.tar.xz"
echo "$out/$name.tar.xz"
