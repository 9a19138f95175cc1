#!/bin/sh
# rpmtree.sh DIR: the rpm packages of DIR in a tree that has what their scriptlets call, but is no Fedora: file lists, scriptlets,
# dependencies, installation, verification, removal. What only a Fedora can show is in docs/hardening.md.
set -eu
dir=$1
base=$(find "${XDG_CACHE_HOME:-/var/cache}/virt-attest-lab" -maxdepth 1 -type d -name 'base-bookworm-*' | head -n 1)
[ -n "$base" ] || { echo "rpmtree: no base system in the cache: run the lab once (make package-test)" >&2; exit 2; }
rpms=$(find "$dir" -maxdepth 1 -name 'virt-attest*.rpm' ! -name '*.src.rpm' ! -name '*.aarch64.rpm')
[ "$(echo "$rpms" | wc -l)" = 6 ] || { echo "rpmtree: not the six packages of one build in $dir" >&2; exit 2; }
work=$(mktemp -d)
trap 'umount "$work/root/proc" "$work/root" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
fail() { echo "rpmtree: $*" >&2; exit 1; }

echo "== file lists"
# Directories of a distribution that these packages may put files into; and their own.
for r in $rpms; do
	foreign=$(rpm -qlp "$r" | grep -vE '^(/usr/bin/virt-attest|/usr/sbin/virt-attest-[a-z]+|/usr/libexec/virt-attest(/.*)?|/usr/lib/systemd/system/virt-attest-.*|/usr/lib/(sysusers|tmpfiles)\.d/virt-attest-.*\.conf|/usr/lib/udev/rules\.d/90-virt-attest-guest\.rules|/usr/share/man/man[1-8]/virt-attest.*|/usr/share/(doc|licenses)/virt-attest.*|/usr/share/(bash-completion|fish|zsh)/.*virt-attest.*|/usr/share/selinux/.*/virt_attest\..*|/etc/virt-attest(/.*)?|/etc/libvirt/hooks/qemu\.d(/50-virt-attest)?)$' || true)
	[ -z "$foreign" ] || fail "$r puts files where it should not: $foreign"
	echo "$(basename "$r"): $(rpm -qlp "$r" | wc -l) files"
done

echo "== dependencies"
for r in $rpms; do
	rpm -qpR "$r" | grep -vE '^(rpmlib|/bin/sh|libc\.so|rtld|config)' | sort -u | sed "s/^/$(rpm -qp --qf '%{NAME}' "$r"): /"
done | tee "$work/deps"
for want in 'virt-attest-host: libvirt-daemon-driver-qemu' 'virt-attest-host: swtpm-tools' 'virt-attest-host: virt-attest(x86-64)' \
	'virt-attest-host: (virt-attest-selinux' 'virt-attest-selinux: selinux-policy-targeted'; do
	grep -qF "$want" "$work/deps" || fail "missing: $want"
done

echo "== scriptlets"
for r in $rpms; do
	for s in PREIN POSTIN PREUN POSTUN POSTTRANS; do
		rpm -qp --qf "%{$s}" "$r" >"$work/script"
		if grep -qx '(none)' "$work/script"; then continue; fi
		! grep -q '%[{a-z]' "$work/script" || fail "$r: $s has a macro that was not expanded"
		bash -n "$work/script" || fail "$r: $s"
	done
done

echo "== installation"
mkdir "$work/root" "$work/upper" "$work/work"
mount -t overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work" tree "$work/root"
mount -t proc proc "$work/root/proc"
# shellcheck disable=SC2086 # a list of files
rpm --root "$work/root" --initdb
# shellcheck disable=SC2086
rpm --root "$work/root" --nodeps -iv $rpms
for p in virt-attest virt-attest-host virt-attest-guest virt-attest-verifier virt-attest-doc virt-attest-selinux; do
	rpm --root "$work/root" -V --nodeps $p || fail "rpm -V $p"
done
grep -E '^virt-attest(-verifier)?:' "$work/root/etc/passwd"
grep -q '^virt-attest:' "$work/root/etc/group" || fail "no group virt-attest"
[ "$(stat -c '%a %u' "$work/root/var/lib/virt-attest/ca")" = "700 0" ] || fail "the CA's directory"
grep -qx 'SupplementaryGroups=qemu' "$work/root/usr/lib/systemd/system/virt-attest-sidecar@.service" || fail "QEMU's group"
chroot "$work/root" virt-attest version

echo "== removal"
mkdir -p "$work/root/etc/libvirt/qemu" "$work/root/var/lib/virt-attest/vtpm/x"
echo keys >"$work/root/var/lib/virt-attest/vtpm/x/tpm2-00.permall"
echo "<domain><source path='/run/virt-attest/x/tpm.sock'/></domain>" >"$work/root/etc/libvirt/qemu/vm1.xml"
! rpm --root "$work/root" -e virt-attest-host || fail "removed, and vm1 does not start any more"
rm "$work/root/etc/libvirt/qemu/vm1.xml"
rpm --root "$work/root" --nodeps -e virt-attest-host virt-attest-verifier virt-attest-guest virt-attest-doc virt-attest-selinux virt-attest
[ -s "$work/root/var/lib/virt-attest/vtpm/x/tpm2-00.permall" ] || fail "a vTPM was deleted"
left=$(find "$work/upper/usr" "$work/upper/etc/libvirt" "$work/upper/etc/virt-attest" -name '*virt-attest*' -type f 2>/dev/null || true)
[ -z "$left" ] || fail "left: $left"
echo "RPM: PASSED"
