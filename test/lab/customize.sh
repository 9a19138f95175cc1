#!/bin/sh
# What makes the base system ($1) a KVM host that runs in a container. Run by mmdebstrap at
# the end, once; what differs from host to host is boot.sh's.
set -eu

# libvirt would listen on TCP and TLS where systemd presets units at first boot.
chroot "$1" systemctl --quiet mask libvirtd-tcp.socket libvirtd-tls.socket

# Nothing to do in a host that lives for minutes and has no route to the outside.
chroot "$1" systemctl --quiet mask \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer systemd-timesyncd.service systemd-networkd.service \
	console-getty.service getty@tty1.service getty-static.service

# Controllers of control groups are the machine's to give: VMs go without.
cat >>"$1/etc/libvirt/qemu.conf" <<EOF
cgroup_controllers = [ ]
security_driver = "none"
EOF

# The machine's AppArmor profile of libvirtd must not attach to the container's.
mkdir -p "$1/etc/systemd/system/libvirtd.service.d"
printf '[Service]\nAppArmorProfile=-unconfined\n' >"$1/etc/systemd/system/libvirtd.service.d/lab.conf"

# tpm2-tools speak to the host's own TPM.
echo 'TPM2TOOLS_TCTI="cmd:socat - UNIX-CONNECT:/run/ptpm/ptpm.sock"' >>"$1/etc/environment"

# Every host gets its own.
: >"$1/etc/machine-id"
rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/var/lib/dbus/machine-id"
rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/log/*.log
