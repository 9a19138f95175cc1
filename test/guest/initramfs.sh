#!/bin/busybox sh
# shellcheck shell=dash
# The first process: load the drivers, then run the agent from here or go over to the root disk.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
read -r line < /proc/cmdline
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_console virtio_blk squashfs; do
	$bb insmod /modules/$m.ko
done
case " $line " in *" va.net=1 "*)
	for m in failover net_failover virtio_net; do $bb insmod /modules/$m.ko; done ;;
esac
case " $line " in *" va.agent=initrd "*)
	$bb stty -echo < /dev/console
	$bb umount /proc
	/bin/virt-attest-guest --initramfs -v > /dev/null 2> /agent.log &
	while :; do $bb cat /dev/console | $bb sh > /dev/console 2>&1; done ;;
esac
n=0
while ! [ -b /dev/vda ] && [ $n -lt 100 ]; do $bb usleep 50000; n=$((n + 1)); done
$bb mount -t squashfs -o ro /dev/vda /root || exec $bb poweroff -f
$bb umount /proc /sys
$bb mount --move /dev /root/dev
exec $bb switch_root /root /sbin/init
