#!/bin/sh
# changelog.sh VERSION EPOCH DIR: writes DIR/debian/changelog and DIR/rpm/changelog, one entry each.
# A distribution's own packages of the same version are newer than these.
# What has changed is told by the release notes; these say which version this is and when it was made.
set -eu
version=$1 epoch=$2 dir=$3
who='virt-attest maintainers <maintainers@virt-attest.invalid>'
mkdir -p "$dir/debian" "$dir/rpm"
LC_ALL=C
export LC_ALL
cat >"$dir/debian/changelog" <<C
virt-attest ($version-0upstream1) unstable; urgency=medium

  * New upstream release; see the release notes for what has changed.

 -- $who  $(date -u -d "@$epoch" '+%a, %d %b %Y %H:%M:%S +0000')
C
cat >"$dir/rpm/changelog" <<C
* $(date -u -d "@$epoch" '+%a %b %d %Y') $who - $version-1
- New upstream release; see the release notes for what has changed
C
