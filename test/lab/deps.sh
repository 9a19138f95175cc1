#!/bin/sh
# Installs the Debian packages that building, testing, the lab and the demo need. Does nothing
# where all are there; starts and enables no service.
set -eu

packages="
	gcc libc6-dev make pkg-config git ca-certificates
	libvirt-dev libvirt0 libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils
	swtpm swtpm-tools tpm2-tools
	systemd-container mmdebstrap dbus iproute2 util-linux procps kmod
	e2fsprogs squashfs-tools cpio xz-utils openssl shellcheck groff-base
	libxml2-utils postgresql chromium fonts-dejavu-core
	bash-completion zsh fish
"
# "deps.sh packages": what builds and checks packages, too.
if [ "${1-}" = packages ]; then
	packages="$packages
		dpkg-dev debhelper dh-apparmor po-debconf fakeroot lintian apparmor
		rpm rpm2cpio rpmlint bzip2 selinux-policy-dev policycoreutils checkpolicy semodule-utils
		gcc-aarch64-linux-gnu libc6-dev-arm64-cross
	"
fi

if ! command -v go >/dev/null; then
	echo "deps: there is no Go here; 1.26 or later is needed (https://go.dev/dl/)" >&2
	exit 2
fi

missing=
for p in $packages; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) || state=
	[ "$state" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps: these Debian packages are missing, and only root can install them:$missing" >&2
	exit 2
fi
if ! command -v apt-get >/dev/null; then
	echo "deps: this is not a Debian; install what is called here:$missing" >&2
	exit 2
fi
echo "deps: installing$missing"

# Packages must not start or enable what they bring: the lab has its own libvirt, the machine's
# is its owner's. A policy or preset that the machine has stays in force.
policy=/usr/sbin/policy-rc.d
preset=/etc/systemd/system-preset/00-virt-attest-deps.preset
cleanup() {
	[ -z "${made_policy-}" ] || rm -f "$policy"
	[ -z "${made_preset-}" ] || rm -f "$preset"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ ! -e "$policy" ]; then
	made_policy=yes
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
if [ ! -e "$preset" ]; then
	made_preset=yes
	mkdir -p "${preset%/*}"
	printf 'disable libvirt*\ndisable virt*\ndisable postgresql*\ndisable dnsmasq*\ndisable systemd-machined*\n' >"$preset"
fi

log=$(mktemp)
run() {
	DEBIAN_FRONTEND=noninteractive timeout 900 "$@" >>"$log" 2>&1 </dev/null
}
install() {
	# shellcheck disable=SC2086 # a list of words
	run apt-get -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends install $missing
}
# The lists may be old or absent: fetch them only if what they say does not do.
if ! install && ! { run apt-get -q -o DPkg::Lock::Timeout=300 update; install; }; then
	tail -n 20 "$log" >&2
	rm -f "$log"
	echo "deps: apt-get failed" >&2
	exit 1
fi
rm -f "$log"
