#!/bin/sh
# Turns this process into a host: assembles its root file system and becomes its container.
# Runs in a mount and a PID namespace of its own, as process 1 of the latter: all mounts and
# all processes of the host end with it.
#
# LAB_BASE    the base system; LAB_DIR  the host's directory on disk
# LAB_AGAIN   non-empty: the host has been up before and keeps what is on its disk
# LAB_OVERLAY non-empty: the root is an overlay on the base system, else a copy of it
# LAB_TREES   directories to lay over the root, one per line
# LAB_GROUPS  control groups to enter, one per line
# LAB_NET     the host's network namespace
# $@          the container's command
set -eu
IFS='
'
for group in $LAB_GROUPS; do
	echo 0 >"$group/cgroup.procs"
done

root=$LAB_DIR/root
mkdir -p "$root" "$LAB_DIR/upper" "$LAB_DIR/work"
if [ -n "$LAB_OVERLAY" ]; then
	mount -t overlay -o "lowerdir=$LAB_BASE,upperdir=$LAB_DIR/upper,workdir=$LAB_DIR/work" lab "$root"
elif [ -z "$LAB_AGAIN" ]; then
	cp -a --reflink=auto "$LAB_BASE/." "$root/"
fi

# /lib and others are links: tar follows them inside the root, where cp would not.
for tree in $LAB_TREES; do
	tar -C "$tree" --owner=0 --group=0 --numeric-owner -c . |
		chroot "$root" tar -x --keep-directory-symlink --no-overwrite-dir -p -f -
done
[ ! -f "$root/etc/virt-attest-lab-setup" ] || chroot "$root" sh -eu /etc/virt-attest-lab-setup

# From here on /proc shows the processes of this PID namespace only.
: >"$LAB_DIR/net"
mount --bind "$LAB_NET" "$LAB_DIR/net"
mount -t proc -o nosuid,nodev,noexec proc /proc
set -- "$@" "--network-namespace-path=$LAB_DIR/net"

unset LAB_BASE LAB_DIR LAB_AGAIN LAB_OVERLAY LAB_TREES LAB_GROUPS LAB_NET
exec "$@"
