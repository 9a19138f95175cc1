#!/bin/sh
# Prints the version that is built: that of a release's tarball, that of the tag, or one between tags.
#   0.2.0              the tag v0.2.0
#   0.2.0+git7.1a2b3c  seven commits after it
#   0~git321.1a2b3c    no tag yet
# Debian and rpm order these alike. "-" is not in them: both read it as the package's own revision.
# With -e: the time of the commit, in seconds since 1970, as of everything that is packed (SOURCE_DATE_EPOCH).
set -eu
cd "$(dirname "$0")/.."
release=packaging/RELEASE
if [ -e "$release" ]; then
	read -r version epoch <"$release"
elif commit=$(git rev-parse --short=10 HEAD 2>/dev/null); then
	epoch=$(git log -1 --format=%ct)
	if tag=$(git describe --tags --match 'v[0-9]*' --abbrev=0 2>/dev/null); then
		version=${tag#v}
		after=$(git rev-list --count "$tag..HEAD")
		[ "$after" = 0 ] || version="$version+git$after.$commit"
	else
		version="0~git$(git rev-list --count HEAD).$commit"
	fi
else
	echo "version.sh: neither a git checkout nor a release's tarball" >&2
	exit 1
fi
if [ "${1-}" = -e ]; then echo "$epoch"; else echo "$version"; fi
